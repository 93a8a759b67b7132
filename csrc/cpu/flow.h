// Arguments of the products of the synaptic flow: y = x v^T and what comes back, v = |w|^power under a mask.
#pragma once

#include "products.h"

namespace sparseprune {

template <class T>
struct Flow {
  const T *w, *x, *grad;  // [outputs, inputs], [places, inputs], [outputs, places]; grad: null on the way forward
  const uint8_t* mask;    // [outputs, inputs] or null
  T *y, *dx, *scores;     // [outputs, places]; [places, inputs]; [outputs, inputs]
  int64_t outputs, inputs, places;
  bool square, stream;    // stream: write scores past the caches
};

constexpr int FLOW_ROWS = 4;          // of weights at a time, sharing what is loaded of x
constexpr int64_t FLOW_CHUNK = 1024;  // inputs at a time on the way forward, and at most on the way back

}  // namespace sparseprune
