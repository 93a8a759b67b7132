// Block floating point: a tile of scores as 31-bit integers on its own power of two.
#pragma once

#include <cmath>
#include <cstdint>

#include "tiles.h"

namespace sparseprune {

// Bits of the largest value; above INFINITE_BITS - 1 when some value is negative, infinite or NaN.
uint64_t largest_bits(const double* v);
constexpr uint64_t INFINITE_BITS = 0x7FF0000000000000u;

// q = max(1, trunc(v 2^(31-exponent))) where v > 0, else 0.
void quantize(const double* v, int exponent, int32_t* q);
int64_t sum(const int32_t* q);

}  // namespace sparseprune
