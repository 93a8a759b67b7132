// What a kernel of the sparse convolutions is given.
#pragma once

#include <cstdint>

#include "cpu/conv_entries.h"

namespace sparseprune {

enum Mode { GATHER, DOT, BOTH };
constexpr int WIDE = 4;  // registers of a wide stretch

// The entries of one panel and the tensors they join. T: in memory, C: of sums.
template <class T, class C>
struct Walk {
  const int32_t* begin;  // by row and rank of tap
  const int64_t* offset;
  const C* weight;              // GATHER, BOTH
  const T *other, *own, *bias;  // own: DOT, BOTH
  T* out;                       // GATHER, BOTH
  C* sums;                      // DOT, BOTH
  int64_t taps, own_plane;
  bool first;         // panel: out begins as the bias, or 0
  bool add;           // to sums
  bool pixels_first;  // GATHER: all rows of some pixels before the next pixels, for short lists
};

}  // namespace sparseprune
