// The mask of an exact global selection, by order-preserving keys: above a threshold, and the first ties at it.
#include <algorithm>
#include <cstring>

#include "kept.h"
#include "keys.h"
#include "race.h"

namespace sparseprune {
namespace {

constexpr int FEW = TILE / 32;  // keys of a race that a glance may leave open

template <class V>
struct Scratch {
  V v[TILE];
  double ratio[TILE];
  int64_t key[TILE];
  Sides sides;
  Kept kept;
};

// Keep values from `high` on, and all of the ties in [low, high) or none; returns the ties among the first n.
template <class V>
inline int64_t mark_as(const V* v, int n, V low, V high, bool ties, uint8_t* keep) {
  int32_t found = 0;
  for (int i = 0; i < n; ++i) {
    const bool tie = (v[i] >= low) & (v[i] < high);
    found += tie;
    keep[i] = (v[i] >= high) | (ties & tie);
  }
  return found;
}
CLONES int64_t mark(const double* v, int n, double low, double high, bool ties, uint8_t* keep) {
  return mark_as(v, n, low, high, ties, keep);
}
CLONES int64_t mark(const float* v, int n, float low, float high, bool ties, uint8_t* keep) {
  return mark_as(v, n, low, high, ties, keep);
}

CLONES int64_t mark(const int64_t* v, int n, int64_t low, int64_t high, bool ties, uint8_t* keep) {
  return mark_as(v, n, low, high, ties, keep);
}

// Of the ties only the first `quota` stay.
template <class V>
int64_t mark_first(const V* v, int n, V low, V high, int64_t quota, uint8_t* keep) {
  const int64_t ties = mark(v, n, low, high, quota > 0, keep);
  if (quota == 0 || quota >= ties) return ties;
  int64_t seen = 0;
  for (int i = 0; i < n; ++i) {
    if (v[i] >= low && v[i] < high && ++seen > quota) keep[i] = 0;
  }
  return ties;
}

CLONES void order(const double* value, int64_t* key) {
  for (int i = 0; i < TILE; ++i) key[i] = order_key(value[i]);
}

CLONES void keep_above(const uint8_t* side, uint8_t* keep) {
  for (int i = 0; i < TILE; ++i) keep[i] = side[i] == Sides::ABOVE;
}

class Marker {
 public:
  Marker(const Vector& vector, Window cut, int64_t tau, Output output)
      : vector_(vector),
        cut_(cut),
        high_(cut.high()),
        low_value_(value_of<double>(cut.low)),
        high_value_(value_of<double>(high_)),
        unit_(tau == 0),
        output_(output) {
    std::memcpy(&tau_, &tau, sizeof tau_);
  }

  // Keep the first `quota` ties of tile b; returns how many ties it has. race: null where values are the keys.
  template <class V>
  int64_t operator()(int64_t b, int64_t quota, const Race* race, uint32_t number, Scratch<V>& t) const {
    const int n = vector_.count(b);
    vector_.load(b, t.v);
    if (race == nullptr) {
      const int64_t ties = mark_first(t.v, n, value_of<V>(cut_.low), value_of<V>(high_), quota, t.kept.keep);
      store(b, t.kept, [&](int i) { return multiplier(t.v[i]); });
      return ties;
    }
    const bool clear = race->glance(t.v, number, low_value_, high_value_, t.sides) <= FEW;
    const int64_t ties = clear ? finish_near(quota, *race, number, t) : mark_all(n, quota, *race, number, t);
    store(b, t.kept, [&](int i) { return multiplier(race->rescale()(t.v[i])); });
    return ties;
  }

 private:
  template <class V>
  int64_t finish_near(int64_t quota, const Race& race, uint32_t number, Scratch<V>& t) const {
    keep_above(t.sides.side, t.kept.keep);
    int64_t ties = 0;
    t.sides.for_each_near([&](int i) {
      const int64_t key = order_key(race.key(t.v[i], number, i));
      const bool tie = key >= cut_.low && key < high_;
      ties += tie;
      t.kept.keep[i] = tie ? ties <= quota : key >= high_;
    });
    return ties;
  }

  template <class V>
  int64_t mark_all(int n, int64_t quota, const Race& race, uint32_t number, Scratch<V>& t) const {
    race.keys(t.v, number, t.ratio);
    order(t.ratio, t.key);
    return mark_first(t.key, n, cut_.low, high_, quota, t.kept.keep);
  }

  double multiplier(double v) const {
    const double ratio = tau_ / v;
    return unit_ || ratio < 1.0 ? 1.0 : ratio;
  }

  template <class F>
  void store(int64_t b, Kept& kept, const F& multiplier) const {
    if (output_ == WEIGHTS && unit_) return vector_.store_marks(b, true, kept.keep);
    store_kept(vector_, b, output_, kept, multiplier);
  }

  const Vector& vector_;
  Window cut_;
  int64_t high_;
  double low_value_, high_value_, tau_;
  bool unit_;
  Output output_;
};

// ties[b] = those of tile b, or 0 where its quota is -1, which leaves it alone.
template <class V>
void mark_tiles(const Vector& vector, const Marker& marker, const Race* race, const TileNumbers& number,
                const int64_t* quota, int64_t* ties) {
  for_each_tile<Scratch<V>>(vector.tiles(), [&](int64_t b, Scratch<V>& t) {
    ties[b] = quota[b] < 0 ? 0 : marker(b, quota[b], race, static_cast<uint32_t>(number[b]), t);
  });
}

Tensor key_mark_cpu(std::vector<Tensor> scores, std::vector<Tensor> factors, int64_t transform, int64_t race, Tensor ids,
                    int64_t exponent, int64_t seed, int64_t stream, int64_t threshold, int64_t shift, int64_t tau,
                    Tensor quota, int64_t output, std::vector<Tensor> weights, std::vector<Tensor> out) {
  const ExactSubnormals exact;  // bounds may be subnormal
  const Vector vector(scores, factors, transform, weights, out);
  Tensor result = torch::stable::new_empty(scores[0], {vector.tiles()}, ScalarType::Long);
  auto* ties = static_cast<int64_t*>(result.data_ptr());
  const auto* limit = static_cast<const int64_t*>(quota.data_ptr());
  const Window cut{static_cast<int64_t>(static_cast<uint64_t>(threshold) << shift), static_cast<int>(shift), 0};
  const Marker marker(vector, cut, tau, static_cast<Output>(output));
  const Race runners(race, exponent, seed, stream), *keys = race == PLAIN ? nullptr : &runners;
  const TileNumbers number(ids);
  vector.fits_float() ? mark_tiles<float>(vector, marker, keys, number, limit, ties)
                      : mark_tiles<double>(vector, marker, keys, number, limit, ties);
  return result;
}

}  // namespace
}  // namespace sparseprune

STABLE_TORCH_LIBRARY_IMPL(sparseprune, CPU, m) { m.impl("key_mark", TORCH_BOX(&sparseprune::key_mark_cpu)); }
