// Draws with replacement inside every tile, fused with the output.
#include <algorithm>

#include "philox.h"
#include "quantize.h"

namespace sparseprune {
namespace {

constexpr int LANES = 32, BATCH = 2 * LANES;  // compilers vectorise 32 calls well, 16 not
constexpr int BLOCK = 8, BLOCKS = TILE / BLOCK;  // the search finds a block, then counts inside it
constexpr int GUIDE = 1024;
constexpr int64_t FEW = 48;          // draws below which a guide table does not pay
constexpr int64_t SPARSE = TILE / 2;  // draws below which only the drawn places get a division

struct Tile {
  double v[TILE], m[TILE] = {};
  int64_t inclusive[TILE];
  int32_t q[TILE], counts[TILE] = {};  // m and counts are zero between tiles
  int32_t slot[BLOCKS], guide[GUIDE + 1], drawn[SPARSE];
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
  for (int i = 0; i < BLOCKS; ++i) {
    slot[i] = static_cast<int32_t>(static_cast<double>(inclusive[BLOCK * i + BLOCK - 1]) * scale);
  }
}

// guide[s] = the first block whose slot is at least s: where the search for a number in slot s starts. Slots come from a
// non-decreasing function of the inclusive sum, so the block that is sought never lies before.
void build_guide(Tile& t, double scale) {
  slots(t.inclusive, scale, t.slot);
  std::fill(t.guide, t.guide + GUIDE + 1, BLOCKS - 1);
  for (int i = BLOCKS - 1; i >= 0; --i) t.guide[t.slot[i]] = i;
  for (int s = GUIDE - 1; s >= 0; --s) t.guide[s] = std::min(t.guide[s], t.guide[s + 1]);
}

// The first element whose inclusive sum exceeds r.
inline int find(const Tile& t, int64_t r, double scale) {
  int block = t.guide[static_cast<int32_t>(static_cast<double>(r) * scale)];
  while (t.inclusive[BLOCK * block + BLOCK - 1] <= r) ++block;
  int at = BLOCK * block;
  for (int half = BLOCK / 2; half > 0; half /= 2) at += half * (t.inclusive[at + half - 1] <= r);
  return at;
}

// n draws of tile b into t.counts, and into t.drawn while they are few: r = floor(u M / 2^64), with rejection.
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
      const int at = guided ? find(t, r, scale)
                            : static_cast<int>(std::upper_bound(t.inclusive, t.inclusive + TILE, r) - t.inclusive);
      ++t.counts[at];
      if (n <= SPARSE) t.drawn[j + i] = at;
    }
  }
}

inline double multiplier(int32_t count, int32_t q, double scale) {
  return (static_cast<double>(count) * scale) / static_cast<double>(q);
}

CLONES void multipliers(const int32_t* counts, const int32_t* q, double scale, double* m) {
  for (int i = 0; i < TILE; ++i) m[i] = counts[i] > 0 ? multiplier(counts[i], q[i], scale) : 0.0;
}

void fill_multipliers(Tile& t, int64_t n, double scale) {
  if (n > SPARSE) return multipliers(t.counts, t.q, scale, t.m);
  for (int64_t j = 0; j < n; ++j) t.m[t.drawn[j]] = multiplier(t.counts[t.drawn[j]], t.q[t.drawn[j]], scale);
}

// Back to zeros.
void clear(Tile& t, int64_t n) {
  if (n > SPARSE) {
    std::fill(t.counts, t.counts + TILE, 0);
    std::fill(t.m, t.m + TILE, 0.0);
  } else {
    for (int64_t j = 0; j < n; ++j) t.counts[t.drawn[j]] = 0, t.m[t.drawn[j]] = 0.0;
  }
}

void draw_tiles_cpu(std::vector<Tensor> scores, std::vector<Tensor> factors, int64_t transform, Tensor exponents,
                    Tensor scales, Tensor draws, int64_t seed, int64_t stream, int64_t output,
                    std::vector<Tensor> weights, std::vector<Tensor> out) {
  const Vector vector(scores, factors, transform, weights, out);
  const auto* exponent = static_cast<const int32_t*>(exponents.data_ptr());
  const auto* scale = static_cast<const double*>(scales.data_ptr());
  const auto* n = static_cast<const int64_t*>(draws.data_ptr());
  for_each_tile<Tile>(vector.tiles(), [&](int64_t b, Tile& t) {
    if (n[b] > 0) {
      vector.load(b, t.v);
      quantize(t.v, exponent[b], t.q);
      draw(t, n[b], static_cast<uint32_t>(b), static_cast<uint64_t>(seed), static_cast<uint32_t>(stream));
      if (output == M || output == WEIGHTS) fill_multipliers(t, n[b], scale[b]);
    }
    vector.store(b, static_cast<Output>(output), t.m, t.counts);
    clear(t, n[b]);
  });
}

}  // namespace
}  // namespace sparseprune

STABLE_TORCH_LIBRARY_IMPL(sparseprune, CPU, m) { m.impl("draw_tiles", TORCH_BOX(&sparseprune::draw_tiles_cpu)); }
