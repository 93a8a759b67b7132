// What the kernel of the per-example gradients of a convolution is given.
#pragma once

#include <cstdint>

namespace sparseprune {

// Output pixel (h, w) meets x[offset[j] + h x_row + w x_pixel + example] through entry j.
template <class T>
struct Each {
  const T *x, *grad;      // padded with zeros; [rows, height, width, outputs, batch]
  T* out;                 // [entries, outputs, batch]
  const int64_t* offset;  // of an entry
  int64_t x_row, x_pixel, height, width, outputs, batch;
};

}  // namespace sparseprune
