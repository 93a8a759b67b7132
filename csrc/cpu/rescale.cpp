#include "rescale.h"

#include <cmath>
#include <limits>

namespace sparseprune {
namespace {

CLONES int rescale(double* v, double first, double second) {
  int32_t good = 0;
  for (int i = 0; i < TILE; ++i) {
    const double x = v[i], scaled = (x * first) * second, least = std::numeric_limits<double>::min();
    const bool positive = (x > 0) & (x <= std::numeric_limits<double>::max());
    good += positive | (x == 0);
    const double raised = scaled < least ? least : scaled;
    v[i] = positive ? raised : 0.0;
  }
  return TILE - good;
}

}  // namespace

Rescale::Rescale(int64_t exponent) {
  const int64_t half = -exponent >> 1;
  first_ = std::ldexp(1.0, static_cast<int>(half));
  second_ = std::ldexp(1.0, static_cast<int>(-exponent - half));
}

int Rescale::operator()(double* v) const { return rescale(v, first_, second_); }

}  // namespace sparseprune
