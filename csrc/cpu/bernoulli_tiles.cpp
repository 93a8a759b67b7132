// An independent coin for every element, fused with the output.
#include <cmath>
#include <cstring>

#include "kept.h"
#include "philox.h"
#include "rescale.h"

namespace sparseprune {
namespace {

template <class V>
struct Scratch {
  V v[TILE];
  Kept kept;
};

struct Coins {
  Rescale rescale;
  double rate;
  uint64_t seed;
  uint32_t stream;

  double probability(double v) const {
    const double p = rate * rescale(v);
    return p < 1.0 ? p : 1.0;
  }
};

// trunc(p 2^62), but at least 1: kept iff the number's first 62 bits are less.
inline double limit(double p) {
  const double t = std::trunc(p * 0x1p62);
  return t < 1.0 ? 1.0 : t;
}

// Keeps by the numbers' high words h: h + 1 <= p 2^32 suffices, h < p 2^32 is necessary where h > 0. Returns how many
// elements are left open: none in nearly all batches.
template <class V>
inline int32_t toss_as(const V* v, const uint64_t* bits, const Coins& coins, uint8_t* keep) {
  int32_t open = 0;
  for (int i = 0; i < BATCH; ++i) {
    const double h = static_cast<double>(static_cast<int64_t>(bits[i] >> 32)), edge = coins.probability(v[i]) * 0x1p32;
    const bool kept = h + 1.0 <= edge;
    open += (v[i] > 0) & !kept & ((h < edge) | (h == 0));
    keep[i] = (v[i] > 0) & kept;
  }
  return open;
}
CLONES int32_t toss(const double* v, const uint64_t* bits, const Coins& coins, uint8_t* keep) {
  return toss_as(v, bits, coins, keep);
}
CLONES int32_t toss(const float* v, const uint64_t* bits, const Coins& coins, uint8_t* keep) {
  return toss_as(v, bits, coins, keep);
}

template <class V>
void toss_exactly(const V* v, const uint64_t* bits, const Coins& coins, uint8_t* keep) {
  for (int i = 0; i < BATCH; ++i) {
    keep[i] = v[i] > 0 && (bits[i] >> 2) < static_cast<uint64_t>(limit(coins.probability(v[i])));
  }
}

template <class V>
void draw(const V* v, uint32_t number, const Coins& coins, uint8_t* keep) {
  uint64_t bits[BATCH];
  for (int g = 0; g < TILE; g += BATCH) {
    random_batch(g, number, BERNOULLI, coins.seed, coins.stream, bits);
    if (toss(v + g, bits, coins, keep + g) > 0) toss_exactly(v + g, bits, coins, keep + g);
  }
}

template <class V>
void draw_tiles(const Vector& vector, const TileNumbers& number, const Coins& coins, Output output) {
  for_each_tile<Scratch<V>>(vector.tiles(), [&](int64_t b, Scratch<V>& t) {
    vector.load(b, t.v);
    draw(t.v, static_cast<uint32_t>(number[b]), coins, t.kept.keep);
    store_kept(vector, b, output, t.kept, [&](int i) { return 0x1p62 / limit(coins.probability(t.v[i])); });
  });
}

void bernoulli_tiles_cpu(std::vector<Tensor> scores, std::vector<Tensor> factors, int64_t transform, Tensor ids,
                         int64_t exponent, int64_t rate, int64_t seed, int64_t stream, int64_t output,
                         std::vector<Tensor> weights, std::vector<Tensor> out) {
  const Vector vector(scores, factors, transform, weights, out);
  const TileNumbers number(ids);
  Coins coins{Rescale(exponent), 0.0, static_cast<uint64_t>(seed), static_cast<uint32_t>(stream)};
  std::memcpy(&coins.rate, &rate, sizeof rate);
  vector.fits_float() ? draw_tiles<float>(vector, number, coins, static_cast<Output>(output))
                      : draw_tiles<double>(vector, number, coins, static_cast<Output>(output));
}

}  // namespace
}  // namespace sparseprune

STABLE_TORCH_LIBRARY_IMPL(sparseprune, CPU, m) { m.impl("bernoulli_tiles", TORCH_BOX(&sparseprune::bernoulli_tiles_cpu)); }
