// Arguments of online gradient descent in the teacher-student model: one run.
#pragma once

#include "lines.h"
#include "products.h"

namespace sparseprune {

constexpr int64_t SGD_ROWS = 4;    // of weights at a time
constexpr int64_t SGD_WIDE = 128;  // numbers to which a row is filled up with zeros: one batch of random pairs

// Student and teacher: rows of weights (the student's first) and output weights.
template <class T>
struct SgdRun {
  Lines<T> w, v;
  int64_t students, units, inputs, stride;  // units: both nets'; stride: of rows
};

struct SgdData {
  double rate, noise;  // eta; sigma of the labels
  uint64_t seed;
  uint32_t stream;
};

}  // namespace sparseprune
