// What the kernels of the convolutions on images [B, C, H, W] are given.
#pragma once

#include "cpu/flat_entries.h"

namespace sparseprune {

// An image of the batch.
template <class T>
struct Image {
  T* data;
  int64_t channel, row;  // numbers from one to the next
};

// Channels [begin, end) of a flat form: numbers of a channel, of a run, of a row.
template <class C>
struct Flat {
  C* data;
  int64_t begin, end, plane, run, pitch;
};

// The entries of a panel for some rows, and what own pixel 0 of a tile picks from.
template <class C>
struct Picked {
  const Segment *segments, *end;
  const int32_t* offset;
  const C* copy;
};

}  // namespace sparseprune
