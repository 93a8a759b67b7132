// Scores on a common power of two, which keeps what is computed from them finite.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "tiles.h"

namespace sparseprune {

// v 2^-exponent, but not below 2^-1022 where v > 0; 0 for what is not positive.
class Rescale {
 public:
  explicit Rescale(int64_t exponent)
      : first_(std::ldexp(1.0, static_cast<int>(-exponent >> 1))),
        second_(std::ldexp(1.0, static_cast<int>(-exponent - (-exponent >> 1)))) {}

  inline double operator()(double v) const {
    const double scaled = (v * first_) * second_, least = std::numeric_limits<double>::min();
    const double raised = scaled < least ? least : scaled;
    return v > 0 ? raised : 0.0;
  }

 private:
  double first_, second_;  // 2^-exponent in two factors, as it may not be finite itself
};

// Bad scores (NaN, infinite, negative) of a tile become 0; returns how many there were.
int clear_bad(double* v);
int clear_bad(float* v);

}  // namespace sparseprune
