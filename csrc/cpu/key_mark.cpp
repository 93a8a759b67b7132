// The mask of an exact global selection, by order-preserving keys: above a threshold, and the first ties at it.
#include <algorithm>
#include <cstring>

#include "kept.h"
#include "keys.h"
#include "race.h"

namespace sparseprune {
namespace {

template <class V>
struct Scratch {
  V v[TILE];
  Kept kept;
};

template <class V>
struct Field : Scratch<V> {
  int64_t key[TILE];
  Sides sides;
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

  // Both keep the first `quota` ties of tile b and return how many it has.
  template <class V>
  int64_t by_value(int64_t b, int64_t quota, Scratch<V>& t) const {
    vector_.load(b, t.v);
    const V low = value_of<V>(cut_.low), high = value_of<V>(high_);
    const int64_t ties = mark_first(t.v, vector_.count(b), low, high, quota, t.kept.keep);
    store(b, t.kept, [&](int i) { return multiplier(t.v[i]); });
    return ties;
  }

  template <class V>
  int64_t by_race(int64_t b, int64_t quota, const Race& race, uint32_t number, Field<V>& t) const {
    vector_.load(b, t.v);
    const bool clear = race.glance(t.v, number, low_value_, high_value_, t.sides) <= FEW;
    const int64_t ties = clear ? finish_near(quota, race, number, t) : mark_all(b, quota, race, number, t);
    store(b, t.kept, [&](int i) { return multiplier(race.rescale()(t.v[i])); });
    return ties;
  }

 private:
  template <class V>
  int64_t finish_near(int64_t quota, const Race& race, uint32_t number, Field<V>& t) const {
    t.sides.keep_above(t.kept.keep);
    int64_t ties = 0;
    t.sides.for_each_near([&](int i) {
      const int64_t key = race.key(t.v[i], number, i);
      const bool tie = key >= cut_.low && key < high_;
      ties += tie;
      t.kept.keep[i] = tie ? ties <= quota : key >= high_;
    });
    return ties;
  }

  template <class V>
  int64_t mark_all(int64_t b, int64_t quota, const Race& race, uint32_t number, Field<V>& t) const {
    race.keys(t.v, number, t.key);
    return mark_first(t.key, vector_.count(b), cut_.low, high_, quota, t.kept.keep);
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

// ties[b] = mark(b, quota, scratch), or 0 where the quota is -1, which leaves the tile alone.
template <class Scratch, class F>
void mark_tiles(int64_t tiles, const int64_t* quota, int64_t* ties, const F& mark) {
  for_each_tile<Scratch>(tiles, [&](int64_t b, Scratch& t) { ties[b] = quota[b] < 0 ? 0 : mark(b, quota[b], t); });
}

// race: null where the values themselves are the keys.
template <class V>
void mark_keys(int64_t tiles, const Marker& marker, const Race* race, const TileNumbers& number, const int64_t* quota,
               int64_t* ties) {
  if (race == nullptr) {
    mark_tiles<Scratch<V>>(tiles, quota, ties,
                           [&](int64_t b, int64_t limit, Scratch<V>& t) { return marker.by_value(b, limit, t); });
  } else {
    mark_tiles<Field<V>>(tiles, quota, ties, [&](int64_t b, int64_t limit, Field<V>& t) {
      return marker.by_race(b, limit, *race, static_cast<uint32_t>(number[b]), t);
    });
  }
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
  vector.fits_float() ? mark_keys<float>(vector.tiles(), marker, keys, number, limit, ties)
                      : mark_keys<double>(vector.tiles(), marker, keys, number, limit, ties);
  return result;
}

}  // namespace
}  // namespace sparseprune

STABLE_TORCH_LIBRARY_IMPL(sparseprune, CPU, m) { m.impl("key_mark", TORCH_BOX(&sparseprune::key_mark_cpu)); }
