// An independent coin for every element, fused with the output.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "philox.h"
#include "rescale.h"

namespace sparseprune {
namespace {

struct Tile {
  double v[TILE], m[TILE];
  int32_t counts[TILE];
};

struct Coins {
  double rate;
  uint64_t seed;
  uint32_t stream;
};

inline double probability(double v, double rate) {
  const double p = rate * v;
  return p < 1.0 ? p : 1.0;
}

// trunc(p 2^62), but at least 1: kept iff the number's first 62 bits are less.
inline double limit(double p) {
  const double t = std::trunc(p * 0x1p62);
  return t < 1.0 ? 1.0 : t;
}

// Keeps by the numbers' high words h: h + 1 <= p 2^32 suffices, h < p 2^32 is necessary where h > 0. Returns how many
// elements are left open: none in nearly all batches.
CLONES int32_t toss(const double* v, const uint64_t* bits, double rate, int32_t* counts) {
  int32_t open = 0;
  for (int i = 0; i < BATCH; ++i) {
    const double h = static_cast<double>(static_cast<int64_t>(bits[i] >> 32)), edge = probability(v[i], rate) * 0x1p32;
    const bool kept = h + 1.0 <= edge;
    open += (v[i] > 0) & !kept & ((h < edge) | (h == 0));
    counts[i] = (v[i] > 0) & kept;
  }
  return open;
}

void toss_exactly(const double* v, const uint64_t* bits, double rate, int32_t* counts) {
  for (int i = 0; i < BATCH; ++i) {
    counts[i] = v[i] > 0 && (bits[i] >> 2) < static_cast<uint64_t>(limit(probability(v[i], rate)));
  }
}

CLONES void multipliers(const double* v, const int32_t* counts, double rate, double* m) {
  for (int i = 0; i < TILE; ++i) m[i] = counts[i] > 0 ? 0x1p62 / limit(probability(v[i], rate)) : 0.0;
}

void draw(Tile& t, uint32_t number, const Coins& coins) {
  uint64_t bits[BATCH];
  for (int g = 0; g < TILE; g += BATCH) {
    random_batch(g, number, BERNOULLI, coins.seed, coins.stream, bits);
    if (toss(t.v + g, bits, coins.rate, t.counts + g) > 0) toss_exactly(t.v + g, bits, coins.rate, t.counts + g);
  }
}

void bernoulli_tiles_cpu(std::vector<Tensor> scores, std::vector<Tensor> factors, int64_t transform, Tensor ids,
                         int64_t exponent, int64_t rate, int64_t seed, int64_t stream, int64_t output,
                         std::vector<Tensor> weights, std::vector<Tensor> out) {
  const Vector vector(scores, factors, transform, weights, out);
  const TileNumbers number(ids);
  const Rescale rescale(exponent);
  Coins coins{0.0, static_cast<uint64_t>(seed), static_cast<uint32_t>(stream)};
  std::memcpy(&coins.rate, &rate, sizeof rate);
  for_each_tile<Tile>(vector.tiles(), [&](int64_t b, Tile& t) {
    vector.load(b, t.v);
    rescale(t.v);
    draw(t, static_cast<uint32_t>(number[b]), coins);
    if (output == M || output == WEIGHTS) multipliers(t.v, t.counts, coins.rate, t.m);
    vector.store(b, static_cast<Output>(output), t.m, t.counts);
  });
}

}  // namespace
}  // namespace sparseprune

STABLE_TORCH_LIBRARY_IMPL(sparseprune, CPU, m) { m.impl("bernoulli_tiles", TORCH_BOX(&sparseprune::bernoulli_tiles_cpu)); }
