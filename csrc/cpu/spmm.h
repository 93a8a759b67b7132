// Arguments of the product y = W x + bias.
#pragma once

#include "products.h"

namespace sparseprune {

template <class T>
struct Spmm {
  Pattern w;
  const T *values, *bias, *x;  // bias: or null; x [inputs, batch]
  T* y;                        // [rows, batch]
  int64_t inputs, batch;
};

// A block of the result, and where its columns of x are: `pitch` numbers a row.
template <class T>
struct SpmmBlock {
  int64_t row, end, column;
  const T* x;
  int64_t pitch;
  int32_t* cursors;  // of the rows, where inputs are taken by panels
};

}  // namespace sparseprune
