// Block floating point: a tile of scores as 31-bit integers on its own power of two.
#pragma once

#include <cstdint>

#include "tiles.h"

namespace sparseprune {

// q = max(1, trunc(v 2^(31-exponent))) where v > 0, else 0.
void quantize(const double* v, int exponent, int32_t* q);
void quantize(const float* v, int exponent, int32_t* q);

}  // namespace sparseprune
