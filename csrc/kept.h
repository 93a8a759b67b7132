// Results of a selection without replacement: which elements of a tile are kept, and with what m.
#pragma once

#include <cstdint>

#include "tiles.h"

namespace sparseprune {

struct Kept {
  uint8_t keep[TILE];
  uint16_t lane[TILE];
  double m[TILE] = {};  // zero between tiles
  int32_t counts[TILE];

  // lane = those kept among the first n; returns how many.
  int list(int n);
};

// Write tile b as `output`; multiplier(lane) is the m of a kept element.
template <class F>
void store_kept(const Vector& vector, int64_t b, Output output, Kept& kept, const F& multiplier) {
  const int n = vector.count(b);
  if (output == BOOL) return vector.store_marks(b, false, kept.keep);
  if (output == COUNTS) {
    std::copy_n(kept.keep, n, kept.counts);
    return vector.store(b, output, kept.m, kept.counts);
  }
  const int found = kept.list(n);
  for (int j = 0; j < found; ++j) kept.m[kept.lane[j]] = multiplier(kept.lane[j]);
  vector.store(b, output, kept.m, kept.counts);
  for (int j = 0; j < found; ++j) kept.m[kept.lane[j]] = 0.0;
}

}  // namespace sparseprune
