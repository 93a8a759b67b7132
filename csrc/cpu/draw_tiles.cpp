// Draws with replacement inside every tile, fused with the output.
#include <algorithm>

#include "philox.h"
#include "quantize.h"

namespace sparseprune {
namespace {

constexpr int LANES = 16, BATCH = 2 * LANES;
constexpr int GUIDE = 1024;  // a guide table pays from about this many draws over 16
constexpr int64_t FEW = 64;

struct Tile {
  int32_t q[TILE];
  int64_t inclusive[TILE];
  int32_t counts[TILE];
  int32_t slot[TILE];
  int32_t guide[GUIDE + 1];
  double v[TILE], m[TILE];
};

inline uint64_t high_product(uint64_t a, uint64_t b) {
  return static_cast<uint64_t>(static_cast<unsigned __int128>(a) * b >> 64);
}

CLONES void draw_batch(int64_t j, uint32_t b, uint64_t seed, uint32_t stream, uint64_t* u) {
  Philox<LANES> calls;
  calls(static_cast<uint32_t>(j >> 1), b, stream, DRAW, seed);
  for (int i = 0; i < LANES; ++i) {
    u[2 * i] = uint64_t{calls.words[0][i]} | uint64_t{calls.words[1][i]} << 32;
    u[2 * i + 1] = uint64_t{calls.words[2][i]} | uint64_t{calls.words[3][i]} << 32;
  }
}

CLONES void slots(const int64_t* inclusive, double scale, int32_t* slot) {
  for (int i = 0; i < TILE; ++i) slot[i] = static_cast<int32_t>(static_cast<double>(inclusive[i]) * scale);
}

// guide[s] = the first element whose slot is at least s: where the search for a number in slot s starts. Slots come from
// a non-decreasing function of the inclusive sum, so the element that is sought never lies before.
void build_guide(Tile& t, double scale) {
  slots(t.inclusive, scale, t.slot);
  std::fill(t.guide, t.guide + GUIDE + 1, TILE - 1);
  for (int i = TILE - 1; i >= 0; --i) t.guide[t.slot[i]] = i;
  for (int s = GUIDE - 1; s >= 0; --s) t.guide[s] = std::min(t.guide[s], t.guide[s + 1]);
}

// n draws of tile b into t.counts: the first element whose inclusive sum exceeds r = floor(u M / 2^64), with rejection.
void draw(Tile& t, int64_t n, uint32_t b, uint64_t seed, uint32_t stream) {
  int64_t total = 0;
  for (int i = 0; i < TILE; ++i) t.inclusive[i] = total += t.q[i];
  const uint64_t mass = static_cast<uint64_t>(total), modulus = (0 - mass) % mass;  // 2^64 mod M
  const double scale = GUIDE / static_cast<double>(total);
  const bool guided = n >= FEW;
  if (guided) build_guide(t, scale);
  uint64_t u[BATCH];
  for (int64_t j = 0; j < n; j += BATCH) {
    draw_batch(j, b, seed, stream, u);
    const int batch = static_cast<int>(std::min<int64_t>(BATCH, n - j));
    for (int i = 0; i < batch; ++i) {
      uint64_t bits = u[i];
      for (uint32_t attempt = 1; bits * mass < modulus; ++attempt) bits = random_bits(j + i, b, DRAW, attempt, seed, stream);
      const auto r = static_cast<int64_t>(high_product(bits, mass));
      int64_t at;
      if (guided) {
        at = t.guide[static_cast<int32_t>(static_cast<double>(r) * scale)];
        while (t.inclusive[at] <= r) ++at;
      } else {
        at = std::upper_bound(t.inclusive, t.inclusive + TILE, r) - t.inclusive;
      }
      ++t.counts[at];
    }
  }
}

CLONES void multipliers(const int32_t* counts, const int32_t* q, double scale, double* m) {
  for (int i = 0; i < TILE; ++i) {
    const double value = (static_cast<double>(counts[i]) * scale) / static_cast<double>(q[i]);
    m[i] = counts[i] > 0 ? value : 0.0;
  }
}

void draw_tiles_cpu(std::vector<Tensor> scores, std::vector<Tensor> factors, int64_t transform, Tensor exponents,
                    Tensor scales, Tensor draws, int64_t seed, int64_t stream, int64_t output,
                    std::vector<Tensor> weights, std::vector<Tensor> out) {
  const Vector vector(scores, factors, transform, weights, out);
  const auto* exponent = static_cast<const int32_t*>(exponents.data_ptr());
  const auto* scale = static_cast<const double*>(scales.data_ptr());
  const auto* n = static_cast<const int64_t*>(draws.data_ptr());
  for_each_tile(vector.tiles(), [&](int64_t b) {
    static thread_local Tile t;
    std::fill(t.counts, t.counts + TILE, 0);
    std::fill(t.m, t.m + TILE, 0.0);
    if (n[b] > 0) {
      vector.load(b, t.v);
      quantize(t.v, exponent[b], t.q);
      draw(t, n[b], static_cast<uint32_t>(b), static_cast<uint64_t>(seed), static_cast<uint32_t>(stream));
      if (output == M || output == WEIGHTS) multipliers(t.counts, t.q, scale[b], t.m);
    }
    vector.store(b, static_cast<Output>(output), t.m, t.counts);
  });
}

}  // namespace
}  // namespace sparseprune

STABLE_TORCH_LIBRARY_IMPL(sparseprune, CPU, m) { m.impl("draw_tiles", TORCH_BOX(&sparseprune::draw_tiles_cpu)); }
