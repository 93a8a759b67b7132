// Products of 128 bits from 32-bit halves, as compilers vectorise them.
#pragma once

#include <cstdint>

namespace sparseprune {

struct Wide {
  uint64_t high, low;
};

inline Wide wide_product(uint64_t a, uint64_t b) {
  constexpr uint64_t MASK32 = 0xFFFFFFFF;
  const uint64_t a0 = a & MASK32, a1 = a >> 32, b0 = b & MASK32, b1 = b >> 32;
  const uint64_t least = a0 * b0, middle = a1 * b0 + (least >> 32), cross = a0 * b1 + (middle & MASK32);
  return {a1 * b1 + (middle >> 32) + (cross >> 32), cross << 32 | (least & MASK32)};
}

}  // namespace sparseprune
