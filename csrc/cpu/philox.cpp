// Philox in batches: where there is AVX-512 by hand, as compilers miss the 32-bit multiplication of 64-bit lanes.
#include "philox.h"

#include <cstring>

#include "portable.h"

#ifdef TARGET
#include <immintrin.h>
#endif

namespace sparseprune {
namespace {

constexpr int CALLS = BATCH / 2;

CLONES void batch_by_compiler(uint32_t c0, uint32_t y, uint32_t purpose, uint64_t seed, uint32_t stream, uint64_t* bits) {
  Philox<CALLS> calls;
  calls(c0, y, stream, purpose, seed);
  for (int i = 0; i < CALLS; ++i) {
    bits[2 * i] = uint64_t{calls.words[0][i]} | uint64_t{calls.words[1][i]} << 32;
    bits[2 * i + 1] = uint64_t{calls.words[2][i]} | uint64_t{calls.words[3][i]} << 32;
  }
}

#ifdef TARGET
TARGET("default")
#endif
void batch(uint32_t c0, uint32_t y, uint32_t purpose, uint64_t seed, uint32_t stream, uint64_t* bits) {
  batch_by_compiler(c0, y, purpose, seed, stream, bits);
}

#ifdef TARGET
typedef uint64_t Lanes __attribute__((vector_size(64)));  // eight calls

// Products of the lower halves: what lies in the upper halves does not matter.
TARGET("arch=x86-64-v4") inline Lanes product(Lanes a, Lanes b) {
  return (Lanes)_mm512_maskz_mul_epu32(0xFF, (__m512i)a, (__m512i)b);
}

TARGET("arch=x86-64-v4")
void batch(uint32_t c0, uint32_t y, uint32_t purpose, uint64_t seed, uint32_t stream, uint64_t* bits) {
  constexpr int VECTORS = CALLS / 8;
  const Lanes zero = {}, m0 = zero + 0xD2511F53, m1 = zero + 0xCD9E8D57, lanes = {0, 1, 2, 3, 4, 5, 6, 7};
  Lanes w0[VECTORS], w1[VECTORS], w2[VECTORS], w3[VECTORS];
  for (int g = 0; g < VECTORS; ++g) {
    w0[g] = lanes + (uint64_t{c0} + 8 * g);
    w1[g] = zero + y;
    w2[g] = zero + stream;
    w3[g] = zero + purpose;
  }
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
#pragma GCC unroll 10
  for (int round = 0; round < 10; ++round) {
#pragma GCC unroll 4
    for (int g = 0; g < VECTORS; ++g) {
      const Lanes p0 = product(w0[g], m0), p1 = product(w2[g], m1);
      w0[g] = (p1 >> 32) ^ w1[g] ^ k0;
      w1[g] = p1;
      w2[g] = (p0 >> 32) ^ w3[g] ^ k1;
      w3[g] = p0;
    }
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  const Lanes first = {0, 8, 1, 9, 2, 10, 3, 11}, second = {4, 12, 5, 13, 6, 14, 7, 15};
  for (int g = 0; g < VECTORS; ++g) {
    const Lanes even = (w0[g] & 0xFFFFFFFF) | w1[g] << 32, odd = (w2[g] & 0xFFFFFFFF) | w3[g] << 32;
    const Lanes pairs[2] = {__builtin_shuffle(even, odd, first), __builtin_shuffle(even, odd, second)};
    std::memcpy(bits + 16 * g, pairs, sizeof pairs);
  }
}
#endif

}  // namespace

void random_batch(uint64_t x, uint32_t y, uint32_t purpose, uint64_t seed, uint32_t stream, uint64_t* bits) {
  batch(static_cast<uint32_t>(x >> 1), y, purpose, seed, stream, bits);
}

}  // namespace sparseprune
