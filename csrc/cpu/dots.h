// Arguments of the dot products at the kept entries, and of the backward pass that adds W^T grad on the way.
#pragma once

#include "products.h"

namespace sparseprune {

// dots[place(j)] = sum_b left[i, b] right[indices[j], b]; with `sums` also sums[i] = sum_j values[place(j)] right[indices[j]].
template <class T>
struct Dots {
  Pattern w;
  const T *left, *right, *values;  // [rows, batch], [others, batch]; values: null without sums
  T *sums, *dots;                  // [rows, batch] or null; [entries]
  int64_t others, batch;
};

// Rows and columns of one tile. Dot products of several tiles are added up in `partial`, which entry `base` begins.
template <class T>
struct DotsBlock {
  int64_t row, end, column;
  const T* right;
  int64_t pitch;
  Sum<T>* partial;
  int64_t base;
  bool first, last;  // tile of the row
};

}  // namespace sparseprune
