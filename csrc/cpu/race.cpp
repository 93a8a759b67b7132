#include "race.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <type_traits>

namespace sparseprune {
namespace {

constexpr double UNIT = 0x1p-32;

inline double as_double(uint64_t bits) {
  double value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
inline uint64_t as_bits(double value) {
  uint64_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

// Exact for x < 2^52, and vectorised everywhere.
inline double whole(uint64_t x) { return as_double(x | 0x4330000000000000) - 0x1p52; }

inline double uniform(uint64_t bits) { return whole(bits >> 32) * UNIT + (whole(bits & 0xFFFFFFFF) + 1.0) * 0x1p-64; }

// frexp, then log f = 2 (s + s^3/3 + s^5/5 + ...) with s = (f-1)/(f+1): a fixed sequence of IEEE operations.
inline double negative_log(double u) {
  const uint64_t bits = as_bits(u);
  double f = as_double((bits & 0x000FFFFFFFFFFFFF) | 0x3FE0000000000000), e = whole(bits >> 52) - 1022.0;
  const bool small = f < 0.7071067811865476;
  f = small ? f * 2.0 : f;
  e = small ? e - 1.0 : e;
  const double s = (f - 1.0) / (f + 1.0), square = s * s;
  double series = 1.0 / 21.0;
  for (int odd = 19; odd > 0; odd -= 2) series = series * square + 1.0 / odd;
  const double log = e * 0.6931471805599453 + 2.0 * (s * series);
  return -(log > -0x1p-64 ? -0x1p-64 : log);
}

inline int64_t key_of(double v, uint64_t bits, bool successive) {
  const double u = uniform(bits);
  return static_cast<int64_t>(as_bits(v / (successive ? negative_log(u) : u)));
}

template <bool SUCCESSIVE_KEYS, class V>
inline void keys_of(const V* v, const Rescale& rescale, const uint64_t* bits, int64_t* key) {
  for (int i = 0; i < BATCH; ++i) key[i] = key_of(rescale(v[i]), bits[i], SUCCESSIVE_KEYS);
}
CLONES void priority_keys(const double* v, const Rescale& rescale, const uint64_t* bits, int64_t* key) {
  keys_of<false>(v, rescale, bits, key);
}
CLONES void priority_keys(const float* v, const Rescale& rescale, const uint64_t* bits, int64_t* key) {
  keys_of<false>(v, rescale, bits, key);
}
CLONES void successive_keys(const double* v, const Rescale& rescale, const uint64_t* bits, int64_t* key) {
  keys_of<true>(v, rescale, bits, key);
}
CLONES void successive_keys(const float* v, const Rescale& rescale, const uint64_t* bits, int64_t* key) {
  keys_of<true>(v, rescale, bits, key);
}

// What a glance works with: fp32, in which a vector holds twice as many numbers, on the power of two of the window.
struct View {
  float low, high;  // less and more than the bounds, which makes up for every rounding
  double scale;
};

struct Tally {
  int32_t near, above;
};

struct Bounds {
  float least, most;
  bool bounded;  // by `most`
};

// u lies in [h, h + 1] 2^-31, h being the first 31 bits.
inline Bounds bounds_of_uniform(int32_t h) {
  const float time = static_cast<float>(h);
  return {time * 0x1p-31f, (time + 1.0f) * 0x1p-31f, true};
}

// -log u is within 2^-13 of 31 log 2 - log h for h >= 2^15, by a polynomial within 2^-16 of log(1 + z), 0 <= z < 1.
inline Bounds bounds_of_log(int32_t h) {
  const int32_t split = std::bit_cast<int32_t>(static_cast<float>(h < 1 << 15 ? 1 << 15 : h));
  const float z = std::bit_cast<float>((split & 0x007FFFFF) | 0x3F800000) - 1.0f;
  const float log = 0.00001f + z * (0.999236f + z * (-0.490231f + z * (0.285273f + z * (-0.131582f + z * 0.030449f))));
  const float time = static_cast<float>(158 - (split >> 23)) * 0.6931472f - log;
  return {time - 0x1p-13f, time + 0x1p-13f, h >= 1 << 15};
}

// Scores as they run, on the view's power of two. fp32 scores are not rescaled.
inline float seen(float v, const Rescale&, const View& view) { return v * static_cast<float>(view.scale); }
inline float seen(double v, const Rescale& rescale, const View& view) {
  return static_cast<float>(rescale(v) * view.scale);
}

template <bool SUCCESSIVE_KEYS, class V>
inline Tally compare(const V* v, const Rescale& rescale, const uint64_t* bits, const View& view, uint8_t* side) {
  int32_t below = 0, above = 0;
  for (int i = 0; i < BATCH; ++i) {
    const auto h = static_cast<int32_t>(bits[i] >> 33);
    const Bounds time = SUCCESSIVE_KEYS ? bounds_of_log(h) : bounds_of_uniform(h);
    const float x = seen(v[i], rescale, view);
    const bool under = x < view.low * time.least, over = time.bounded & (x >= view.high * time.most);
    below += under;
    above += over;
    side[i] = static_cast<uint8_t>(!under + over);
  }
  return {BATCH - below - above, above};
}
CLONES Tally glance_priority(const double* v, const Rescale& rescale, const uint64_t* bits, View view, uint8_t* side) {
  return compare<false>(v, rescale, bits, view, side);
}
CLONES Tally glance_priority(const float* v, const Rescale& rescale, const uint64_t* bits, View view, uint8_t* side) {
  return compare<false>(v, rescale, bits, view, side);
}
CLONES Tally glance_successive(const double* v, const Rescale& rescale, const uint64_t* bits, View view, uint8_t* side) {
  return compare<true>(v, rescale, bits, view, side);
}
CLONES Tally glance_successive(const float* v, const Rescale& rescale, const uint64_t* bits, View view, uint8_t* side) {
  return compare<true>(v, rescale, bits, view, side);
}

CLONES void copy_above(const uint8_t* side, uint8_t* keep) {
  for (int i = 0; i < TILE; ++i) keep[i] = side[i] == Sides::ABOVE;
}

}  // namespace

Race::Race(int64_t kind, int64_t exponent, int64_t seed, int64_t stream)
    : kind_(kind),
      rescale_(exponent),
      rescales_(exponent != 0),
      seed_(static_cast<uint64_t>(seed)),
      stream_(static_cast<uint32_t>(stream)),
      purpose_(kind == PRIORITY_RACE ? PRIORITY : kind == SUCCESSIVE_RACE ? SUCCESSIVE : BERNOULLI) {}

void Sides::keep_above(uint8_t* keep) const { copy_above(side, keep); }

template <class V>
void Race::keys(const V* v, uint32_t tile, int64_t* key) const {
  uint64_t bits[BATCH];
  for (int g = 0; g < TILE; g += BATCH) {
    random_batch(g, tile, purpose_, seed_, stream_, bits);
    if (kind_ == SUCCESSIVE_RACE) {
      successive_keys(v + g, rescale_, bits, key + g);
    } else {
      priority_keys(v + g, rescale_, bits, key + g);
    }
  }
}
template void Race::keys(const float*, uint32_t, int64_t*) const;
template void Race::keys(const double*, uint32_t, int64_t*) const;

int64_t Race::key(double v, uint32_t tile, int lane) const {
  return key_of(rescale_(v), random_bits(lane, tile, purpose_, 0, seed_, stream_), kind_ == SUCCESSIVE_RACE);
}

template <class V>
int Race::glance(const V* v, uint32_t tile, double low, double high, Sides& sides) const {
  constexpr bool FLOAT = std::is_same_v<V, float>;
  constexpr int LIMIT = FLOAT ? 100 : 900;
  if (!(low > 0 && high < low * 0x1p30) || (FLOAT && rescales_)) return TILE;
  int exponent;
  std::frexp(low, &exponent);
  if (std::abs(exponent) > LIMIT) return TILE;
  const double scale = std::ldexp(1.0, -exponent), slack = 0x1p-20;
  const View view{static_cast<float>(low * scale * (1 - slack)), static_cast<float>(high * scale * (1 + slack)), scale};
  uint64_t bits[BATCH];
  int near = sides.above = 0;
  for (int g = 0; g < TILE; g += BATCH) {
    random_batch(g, tile, purpose_, seed_, stream_, bits);
    const Tally tally = kind_ == SUCCESSIVE_RACE ? glance_successive(v + g, rescale_, bits, view, sides.side + g)
                                                 : glance_priority(v + g, rescale_, bits, view, sides.side + g);
    near += sides.near[g / BATCH] = tally.near;
    sides.above += tally.above;
  }
  return near;
}
template int Race::glance(const float*, uint32_t, double, double, Sides&) const;
template int Race::glance(const double*, uint32_t, double, double, Sides&) const;

}  // namespace sparseprune
