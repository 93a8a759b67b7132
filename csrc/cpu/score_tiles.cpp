#include <atomic>
#include <cstring>
#include <limits>
#include <tuple>

#include "quantize.h"

namespace sparseprune {
namespace {

CLONES uint64_t largest_bits_loop(const uint64_t* bits) {
  uint64_t largest = 0;
  for (int i = 0; i < TILE; ++i) largest = bits[i] > largest ? bits[i] : largest;
  return largest;
}

CLONES void quantize_loop(const double* v, double scale, double rest, int32_t* q) {
  for (int i = 0; i < TILE; ++i) {
    const int32_t floored = static_cast<int32_t>((v[i] * scale) * rest);
    const int32_t positive = v[i] > 0.0;
    q[i] = floored > positive ? floored : positive;
  }
}

CLONES int64_t sum_loop(const int32_t* q) {
  int64_t total = 0;
  for (int i = 0; i < TILE; ++i) total += q[i];
  return total;
}

inline bool is_bad(double v) {
  uint64_t bits;
  std::memcpy(&bits, &v, sizeof bits);
  return bits >= INFINITE_BITS;
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

  for_each_tile(tiles, [&](int64_t b) {
    double v[TILE];
    int32_t q[TILE];
    vector.load(b, v);
    if (largest_bits(v) >= INFINITE_BITS) {
      for (int i = TILE - 1; i >= 0; --i) {
        if (is_bad(v[i])) {
          lower(first_bad, b * TILE + i);
          v[i] = 0.0;
        }
      }
    }
    const uint64_t bits = largest_bits(v);
    double largest;
    std::memcpy(&largest, &bits, sizeof largest);
    std::frexp(largest, &e[b]);
    quantize(v, e[b], q);
    mass[b] = sum(q);
  });
  *static_cast<int64_t*>(bad.data_ptr()) = first_bad == NONE ? -1 : first_bad.load();
  return {exponents, masses, bad};
}

}  // namespace

uint64_t largest_bits(const double* v) {
  uint64_t bits[TILE];
  std::memcpy(bits, v, sizeof bits);
  return largest_bits_loop(bits);
}

void quantize(const double* v, int exponent, int32_t* q) {
  const int shift = 31 - exponent, half = shift >> 1;  // 2^shift itself may not be finite
  quantize_loop(v, std::ldexp(1.0, half), std::ldexp(1.0, shift - half), q);
}

int64_t sum(const int32_t* q) { return sum_loop(q); }

}  // namespace sparseprune

STABLE_TORCH_LIBRARY_IMPL(sparseprune, CPU, m) { m.impl("score_tiles", TORCH_BOX(&sparseprune::score_tiles_cpu)); }
