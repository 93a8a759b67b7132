// Gradients of a convolution's weights, summed over spans of the images apart.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <cstdint>

#include "simd.h"

namespace sparseprune {

// dvalues[place[j]] = the sums of entry j in all spans, in their order; sums [spans, size].
template <class T>
void add_spans(const Sum<T>* sums, int64_t spans, int64_t size, const int32_t* place, T* dvalues) {
  torch::stable::parallel_for(0, size, 1 << 13, [&](int64_t from, int64_t to) {
    for (int64_t j = from; j < to; ++j) {
      Sum<T> sum = 0;
      for (int64_t s = 0; s < spans; ++s) sum += sums[size * s + j];
      dvalues[place[j]] = narrow<T>(sum);
    }
  });
}

}  // namespace sparseprune
