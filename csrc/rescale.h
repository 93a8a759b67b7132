// Scores on a common power of two, which keeps what is computed from them finite.
#pragma once

#include <cstdint>

#include "tiles.h"

namespace sparseprune {

class Rescale {
 public:
  explicit Rescale(int64_t exponent);
  // v 2^-exponent, but not below 2^-1022 where v > 0, for a whole tile. Bad scores (NaN, infinite, negative) become 0;
  // returns how many there were.
  int operator()(double* v) const;

 private:
  double first_, second_;  // 2^-exponent in two factors, as it may not be finite itself
};

}  // namespace sparseprune
