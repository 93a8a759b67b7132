#include <atomic>
#include <cstring>
#include <limits>
#include <tuple>

#include "quantize.h"

namespace sparseprune {
namespace {

constexpr uint64_t INFINITE_BITS = 0x7FF0000000000000u;

inline uint64_t bits_of(double v) {
  uint64_t bits;
  std::memcpy(&bits, &v, sizeof bits);
  return bits;
}

// Bits of the largest value; at least INFINITE_BITS when some value is negative, infinite or NaN.
CLONES uint64_t largest_bits(const double* v) {
  uint64_t largest = 0;
  for (int i = 0; i < TILE; ++i) largest = bits_of(v[i]) > largest ? bits_of(v[i]) : largest;
  return largest;
}

inline int32_t quantum(double v, double scale, double rest) {
  const int32_t floored = static_cast<int32_t>((v * scale) * rest), positive = v > 0.0;
  return floored > positive ? floored : positive;
}

CLONES void quantize_loop(const double* v, double scale, double rest, int32_t* q) {
  for (int i = 0; i < TILE; ++i) q[i] = quantum(v[i], scale, rest);
}

CLONES int64_t mass_loop(const double* v, double scale, double rest) {
  int64_t total = 0;
  for (int i = 0; i < TILE; ++i) total += quantum(v[i], scale, rest);
  return total;
}

// 2^(31-exponent) in two factors, as it may not be finite itself.
struct Scale {
  explicit Scale(int exponent) : first(std::ldexp(1.0, (31 - exponent) >> 1)), second(std::ldexp(1.0, 31 - exponent - ((31 - exponent) >> 1))) {}
  double first, second;
};

struct Scratch {
  double v[TILE];
};

// Replace bad values by 0; the place of the first one.
int clear_bad(double* v) {
  int first = -1;
  for (int i = TILE - 1; i >= 0; --i) {
    if (bits_of(v[i]) >= INFINITE_BITS) {
      v[i] = 0.0;
      first = i;
    }
  }
  return first;
}

void lower(std::atomic<int64_t>& minimum, int64_t value) {
  int64_t seen = minimum.load();
  while (value < seen && !minimum.compare_exchange_weak(seen, value)) {
  }
}

std::tuple<Tensor, Tensor, Tensor> score_tiles_cpu(std::vector<Tensor> scores, std::vector<Tensor> factors,
                                                   int64_t transform) {
  const Vector vector(scores, factors, transform);
  const int64_t tiles = vector.tiles();
  Tensor exponents = torch::stable::new_empty(scores[0], {tiles}, ScalarType::Int);
  Tensor masses = torch::stable::new_empty(scores[0], {tiles}, ScalarType::Long);
  Tensor bad = torch::stable::new_empty(scores[0], {1}, ScalarType::Long);
  auto* e = static_cast<int32_t*>(exponents.data_ptr());
  auto* mass = static_cast<int64_t*>(masses.data_ptr());
  constexpr int64_t NONE = std::numeric_limits<int64_t>::max();
  std::atomic<int64_t> first_bad{NONE};

  for_each_tile<Scratch>(tiles, [&](int64_t b, Scratch& t) {
    vector.load(b, t.v);
    uint64_t bits = largest_bits(t.v);
    if (bits >= INFINITE_BITS) {
      lower(first_bad, b * TILE + clear_bad(t.v));
      bits = largest_bits(t.v);
    }
    double largest;
    std::memcpy(&largest, &bits, sizeof largest);
    std::frexp(largest, &e[b]);
    const Scale scale(e[b]);
    mass[b] = mass_loop(t.v, scale.first, scale.second);
  });
  *static_cast<int64_t*>(bad.data_ptr()) = first_bad == NONE ? -1 : first_bad.load();
  return {exponents, masses, bad};
}

}  // namespace

void quantize(const double* v, int exponent, int32_t* q) {
  const Scale scale(exponent);
  quantize_loop(v, scale.first, scale.second, q);
}

}  // namespace sparseprune

STABLE_TORCH_LIBRARY_IMPL(sparseprune, CPU, m) { m.impl("score_tiles", TORCH_BOX(&sparseprune::score_tiles_cpu)); }
