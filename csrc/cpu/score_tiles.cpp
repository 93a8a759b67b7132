// Exponent, quantised mass and number of positive scores of every tile, and the first bad score.
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <tuple>
#include <type_traits>

#include "quantize.h"

namespace sparseprune {
namespace {

// 2^(31 - e) is an fp32 number, and products with it are exact, for tile exponents from here on.
constexpr int LEAST_FLOAT_EXPONENT = -95;

template <class V>
struct Scratch {
  V v[TILE];
  double wide[TILE];
};

template <class V>
inline auto bits_of(V v) {
  std::conditional_t<sizeof(V) == 4, uint32_t, uint64_t> bits;
  std::memcpy(&bits, &v, sizeof bits);
  return bits;
}

template <class V>
inline bool is_bad(V v) {  // negative, infinite or NaN
  return bits_of(v) >= bits_of(std::numeric_limits<V>::infinity());
}

// The value with the largest bits: the largest one, unless some value is bad, then a bad one.
template <class V>
inline V largest_of(const V* v) {
  auto most = bits_of(V{0});
  for (int i = 0; i < TILE; ++i) most = bits_of(v[i]) > most ? bits_of(v[i]) : most;
  V largest;
  std::memcpy(&largest, &most, sizeof largest);
  return largest;
}
CLONES double largest(const double* v) { return largest_of(v); }
CLONES float largest(const float* v) { return largest_of(v); }

template <class V>
inline int32_t quantum(V v, V scale, V rest) {
  const int32_t floored = static_cast<int32_t>((v * scale) * rest), positive = v > 0;
  return floored > positive ? floored : positive;
}

CLONES void quantize_loop(const double* v, double scale, double rest, int32_t* q) {
  for (int i = 0; i < TILE; ++i) q[i] = quantum(v[i], scale, rest);
}
CLONES void quantize_loop(const float* v, float scale, int32_t* q) {
  for (int i = 0; i < TILE; ++i) q[i] = quantum(v[i], scale, 1.0f);
}

struct Sum {
  int64_t mass = 0;
  int32_t positives = 0;
};

template <class V>
inline Sum sum_of(const V* v, V scale, V rest) {
  Sum sum;
  for (int i = 0; i < TILE; ++i) {
    sum.mass += quantum(v[i], scale, rest);
    sum.positives += v[i] > 0;
  }
  return sum;
}
CLONES Sum sum(const double* v, double scale, double rest) { return sum_of(v, scale, rest); }
CLONES Sum sum(const float* v, float scale) { return sum_of(v, scale, 1.0f); }

// 2^(31 - exponent) in two factors, as it may not be finite itself.
struct Scale {
  explicit Scale(int exponent) {
    const int shift = 31 - exponent, half = shift >> 1;
    first = std::ldexp(1.0, half);
    second = std::ldexp(1.0, shift - half);
  }
  double first, second;
};

// Replace bad values by 0; the place of the first one.
int clear_and_find_bad(double* v) {
  int first = -1;
  for (int i = TILE - 1; i >= 0; --i) {
    if (is_bad(v[i])) {
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

struct Table {
  int32_t* exponent;
  int64_t* mass;
  int32_t* positives;
  std::atomic<int64_t> first_bad{std::numeric_limits<int64_t>::max()};

  int set_exponent(int64_t b, double largest) {
    std::frexp(largest, &exponent[b]);
    return exponent[b];
  }
  void set(int64_t b, const Sum& sum) {
    mass[b] = sum.mass;
    positives[b] = sum.positives;
  }
};

void fill_entry(double* v, int64_t b, Table& table) {
  if (is_bad(largest(v))) lower(table.first_bad, b * TILE + clear_and_find_bad(v));
  const Scale scale(table.set_exponent(b, largest(v)));
  table.set(b, sum(v, scale.first, scale.second));
}

template <class V>
void fill_table(const Vector& vector, Table& table) {
  for_each_tile<Scratch<V>>(vector.tiles(), [&](int64_t b, Scratch<V>& t) {
    vector.load(b, t.v);
    if constexpr (std::is_same_v<V, float>) {
      const float most = largest(t.v);
      if (!is_bad(most) && table.set_exponent(b, most) >= LEAST_FLOAT_EXPONENT) {
        return table.set(b, sum(t.v, std::ldexp(1.0f, 31 - table.exponent[b])));
      }
    }
    std::copy_n(t.v, TILE, t.wide);
    fill_entry(t.wide, b, table);
  });
}

std::tuple<Tensor, Tensor, Tensor, Tensor> score_tiles_cpu(std::vector<Tensor> scores, std::vector<Tensor> factors,
                                                           int64_t transform) {
  const Vector vector(scores, factors, transform);
  Tensor exponents = torch::stable::new_empty(scores[0], {vector.tiles()}, ScalarType::Int);
  Tensor masses = torch::stable::new_empty(scores[0], {vector.tiles()}, ScalarType::Long);
  Tensor positives = torch::stable::new_empty(scores[0], {vector.tiles()}, ScalarType::Int);
  Tensor bad = torch::stable::new_empty(scores[0], {1}, ScalarType::Long);
  Table table{static_cast<int32_t*>(exponents.data_ptr()), static_cast<int64_t*>(masses.data_ptr()),
              static_cast<int32_t*>(positives.data_ptr())};
  vector.fits_float() ? fill_table<float>(vector, table) : fill_table<double>(vector, table);
  const int64_t first = table.first_bad;
  *static_cast<int64_t*>(bad.data_ptr()) = first == std::numeric_limits<int64_t>::max() ? -1 : first;
  return {exponents, masses, positives, bad};
}

}  // namespace

void quantize(const double* v, int exponent, int32_t* q) {
  const Scale scale(exponent);
  quantize_loop(v, scale.first, scale.second, q);
}

void quantize(const float* v, int exponent, int32_t* q) {
  if (exponent >= LEAST_FLOAT_EXPONENT) return quantize_loop(v, std::ldexp(1.0f, 31 - exponent), q);
  double wide[TILE];
  std::copy_n(v, TILE, wide);
  quantize(wide, exponent, q);
}

}  // namespace sparseprune

STABLE_TORCH_LIBRARY_IMPL(sparseprune, CPU, m) { m.impl("score_tiles", TORCH_BOX(&sparseprune::score_tiles_cpu)); }
