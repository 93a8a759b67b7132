// Vectors for kernels that are compiled once per instruction set: what does not depend on the set.
//
// A file of kernels holds templates over Vec<C> (vec.h) and no include of its own; the .cpp that uses it says
//     #define KERNELS "cpu/name_kernels.h"
//     #include "each_isa.h"
// and calls ON_ISA(kernel<float>(...)). The set is switched by a pragma around the inclusion, which templates keep and
// lambdas do not: no lambdas in such files. (target_clones cannot be used with intrinsics, on which fma and masks rest.)
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "portable.h"

#ifdef TARGET
#include <immintrin.h>
#define ON_ISA(call) (isa() == AVX512 ? avx512::call : isa() == AVX2 ? avx2::call : plain::call)
#else
#define ON_ISA(call) plain::call
#endif
#define INLINE inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 32")

namespace sparseprune {

enum Isa { PLAIN, AVX2, AVX512 };

// The best set of this machine; SPARSEPRUNE_ISA=avx2 or plain lowers it (read once).
Isa isa();

struct BFloat16 {
  uint16_t bits;
};

// The type in which sums of T are taken.
template <class T>
using Sum = std::conditional_t<std::is_same_v<T, BFloat16>, float, T>;

INLINE float widen(BFloat16 x) { return std::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16); }
INLINE float widen(float x) { return x; }
INLINE double widen(double x) { return x; }

// To the nearest, ties to even; NaN stays NaN.
template <class T>
INLINE T narrow(Sum<T> x) {
  if constexpr (std::is_same_v<T, BFloat16>) {
    const auto u = std::bit_cast<uint32_t>(x);
    return {static_cast<uint16_t>(x != x ? 0x7FC0u : (u + 0x7FFFu + (u >> 16 & 1u)) >> 16)};
  } else {
    return x;
  }
}

// The first row of part p of `parts` contiguous ranges of equal cost, where a row costs its entries and `row_cost`.
inline int64_t balanced(const int32_t* offsets, int64_t rows, int64_t row_cost, int64_t p, int64_t parts) {
  const int64_t wanted = (offsets[rows] - offsets[0] + rows * row_cost) * p / parts;
  int64_t low = 0, high = rows;
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (offsets[middle] - offsets[0] + middle * row_cost < wanted) low = middle + 1;
    else high = middle;
  }
  return low;
}

}  // namespace sparseprune
