// An independent coin for every element, fused with the output.
#include <algorithm>
#include <cstring>

#include "kept.h"
#include "race.h"

namespace sparseprune {
namespace {

template <class V>
struct Scratch {
  V v[TILE];
  Sides sides;
  Kept kept;
};

class Coins {
 public:
  Coins(int64_t exponent, int64_t rate, int64_t seed, int64_t stream)
      : race_(COINS, exponent, seed, stream), seed_(static_cast<uint64_t>(seed)), stream_(static_cast<uint32_t>(stream)) {
    std::memcpy(&rate_, &rate, sizeof rate_);
  }

  // An element is kept where u < c v up to the last bits, that is where v / u > 1 / c: a glance tells nearly all.
  template <class V>
  void toss(uint32_t number, Scratch<V>& t) const {
    const double edge = 1.0 / rate_;
    if (race_.glance(t.v, number, edge, edge, t.sides) < TILE) {
      t.sides.keep_above(t.kept.keep);
      t.sides.for_each_near(
          [&](int i) { t.kept.keep[i] = keeps(t.v[i], random_bits(i, number, BERNOULLI, 0, seed_, stream_)); });
      return;
    }
    uint64_t bits[BATCH];
    for (int g = 0; g < TILE; g += BATCH) {
      random_batch(g, number, BERNOULLI, seed_, stream_, bits);
      for (int i = 0; i < BATCH; ++i) t.kept.keep[g + i] = keeps(t.v[g + i], bits[i]);
    }
  }

  double multiplier(double v) const { return 0x1p62 / static_cast<double>(limit(v)); }

 private:
  // t = trunc(min(1, c v) 2^62), but at least 1.
  int64_t limit(double v) const {
    const double p = rate_ * race_.rescale()(v);
    return std::max<int64_t>(1, static_cast<int64_t>((p < 1.0 ? p : 1.0) * 0x1p62));
  }
  bool keeps(double v, uint64_t bits) const { return v > 0 && static_cast<int64_t>(bits >> 2) < limit(v); }

  Race race_;
  double rate_;
  uint64_t seed_;
  uint32_t stream_;
};

template <class V>
void toss_tiles(const Vector& vector, const TileNumbers& number, const Coins& coins, Output output) {
  for_each_tile<Scratch<V>>(vector.tiles(), [&](int64_t b, Scratch<V>& t) {
    vector.load(b, t.v);
    coins.toss(static_cast<uint32_t>(number[b]), t);
    store_kept(vector, b, output, t.kept, [&](int i) { return coins.multiplier(t.v[i]); });
  });
}

void bernoulli_tiles_cpu(std::vector<Tensor> scores, std::vector<Tensor> factors, int64_t transform, Tensor ids,
                         int64_t exponent, int64_t rate, int64_t seed, int64_t stream, int64_t output,
                         std::vector<Tensor> weights, std::vector<Tensor> out) {
  const Vector vector(scores, factors, transform, weights, out);
  const TileNumbers number(ids);
  const Coins coins(exponent, rate, seed, stream);
  vector.fits_float() ? toss_tiles<float>(vector, number, coins, static_cast<Output>(output))
                      : toss_tiles<double>(vector, number, coins, static_cast<Output>(output));
}

}  // namespace
}  // namespace sparseprune

STABLE_TORCH_LIBRARY_IMPL(sparseprune, CPU, m) {
  m.impl("bernoulli_tiles", TORCH_BOX(&sparseprune::bernoulli_tiles_cpu));
}
