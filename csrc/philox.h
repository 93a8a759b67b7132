// Philox4x32-10 (Salmon et al. 2011): counter-based random numbers, keyed by the seed.
#pragma once

#include <array>
#include <cstdint>

namespace sparseprune {

// Purposes: the low byte of the fourth counter word.
enum Purpose : uint32_t { NODE = 1, DRAW, POISSON, SYSTEMATIC, PRIORITY, BERNOULLI, SUCCESSIVE, NORMAL };

// LANES independent calls side by side, so that compilers vectorise the rounds. words[j][lane].
template <int LANES>
struct Philox {
  uint32_t words[4][LANES];

  // Counters (c0 + lane, c1, c2, c3).
  inline void operator()(uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, uint64_t seed) {
    for (int i = 0; i < LANES; ++i) {
      words[0][i] = c0 + i;
      words[1][i] = c1;
      words[2][i] = c2;
      words[3][i] = c3;
    }
    uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
    for (int round = 0; round < 10; ++round) {
      for (int i = 0; i < LANES; ++i) {
        const uint64_t p0 = uint64_t{0xD2511F53u} * words[0][i], p1 = uint64_t{0xCD9E8D57u} * words[2][i];
        words[0][i] = static_cast<uint32_t>(p1 >> 32) ^ words[1][i] ^ k0;
        words[1][i] = static_cast<uint32_t>(p1);
        words[2][i] = static_cast<uint32_t>(p0 >> 32) ^ words[3][i] ^ k1;
        words[3][i] = static_cast<uint32_t>(p0);
      }
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
  }
};

// R(x, y, purpose, attempt): 64 bits, low word first, two numbers a call.
inline uint64_t random_bits(uint64_t x, uint32_t y, uint32_t purpose, uint32_t attempt, uint64_t seed, uint32_t stream) {
  Philox<1> call;
  call(static_cast<uint32_t>(x >> 1), y, stream, purpose + 256 * attempt, seed);
  const int pair = 2 * static_cast<int>(x & 1);
  return uint64_t{call.words[pair][0]} | uint64_t{call.words[pair + 1][0]} << 32;
}

constexpr int BATCH = 64;

// bits[i] = R(x + i, y, purpose, 0) for i < BATCH; x is even. The fastest way here to many numbers.
void random_batch(uint64_t x, uint32_t y, uint32_t purpose, uint64_t seed, uint32_t stream, uint64_t* bits);

}  // namespace sparseprune
