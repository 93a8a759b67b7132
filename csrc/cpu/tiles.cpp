#include "tiles.h"

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <type_traits>

namespace sparseprune {
namespace {

using torch::headeronly::BFloat16;
using torch::headeronly::Half;

// Exact: V is double, or holds every value of T.
template <class V, class T>
inline V widen(T x) {
  return static_cast<V>(static_cast<float>(x));
}
template <class V>
inline V widen(double x) {
  return static_cast<V>(x);
}

template <class T, class V, bool ABSOLUTE>
inline void convert(const void* source, int64_t offset, int n, V* v) {
  const T* x = static_cast<const T*>(source) + offset;
  for (int i = 0; i < n; ++i) v[i] = ABSOLUTE ? std::fabs(widen<V>(x[i])) : widen<V>(x[i]);
}

template <bool ABSOLUTE, class V>
inline void read_as(const Array& a, int64_t offset, int n, V* v) {
  switch (a.type) {
    case ScalarType::Float: return convert<float, V, ABSOLUTE>(a.data, offset, n, v);
    case ScalarType::Double: return convert<double, V, ABSOLUTE>(a.data, offset, n, v);
    case ScalarType::Half: return convert<Half, V, ABSOLUTE>(a.data, offset, n, v);
    case ScalarType::BFloat16: return convert<BFloat16, V, ABSOLUTE>(a.data, offset, n, v);
    default: throw std::runtime_error("sparseprune: unsupported dtype");
  }
}

CLONES void read(const Array& a, int64_t offset, int n, double* v) { read_as<false>(a, offset, n, v); }
CLONES void read(const Array& a, int64_t offset, int n, float* v) { read_as<false>(a, offset, n, v); }
CLONES void read_absolute(const Array& a, int64_t offset, int n, double* v) { read_as<true>(a, offset, n, v); }
CLONES void read_absolute(const Array& a, int64_t offset, int n, float* v) { read_as<true>(a, offset, n, v); }

CLONES void square(double* v, int n) {
  for (int i = 0; i < n; ++i) v[i] *= v[i];
}

CLONES void multiply(double* v, const double* f, int n) {
  for (int i = 0; i < n; ++i) v[i] *= f[i];
}

CLONES void absolute(double* v, int n) {
  for (int i = 0; i < n; ++i) v[i] = std::fabs(v[i]);
}

CLONES void positive_zero(double* v, int n) {
  for (int i = 0; i < n; ++i) v[i] += 0.0;
}
CLONES void positive_zero(float* v, int n) {
  for (int i = 0; i < n; ++i) v[i] += 0.0f;
}

// The factor repeats with its period along the piece: a short one is read once and written out.
void multiply_factor(const Piece& piece, int64_t offset, int n, double* v) {
  double f[TILE];
  const int64_t at = offset % piece.period;
  const int period = static_cast<int>(std::min<int64_t>(n, piece.period));
  const int length = static_cast<int>(std::min<int64_t>(period, piece.period - at));
  read(piece.factor, at, length, f);
  read(piece.factor, 0, period - length, f + length);
  for (int filled = period; filled < n; filled *= 2) std::copy_n(f, std::min(filled, n - filled), f + filled);
  multiply(v, f, n);
}

template <class T>
inline T narrow(double x) {
  return T(static_cast<float>(x));
}
template <>
inline float narrow<float>(double x) {
  return static_cast<float>(x);
}
template <>
inline double narrow<double>(double x) {
  return x;
}

// fp32 m unless the scores are fp64; w m is one product in the wider type, then one rounding to the output.
template <class Out>
inline void store_m(const double* m, int n, bool wide, Out* out) {
  for (int i = 0; i < n; ++i) out[i] = wide ? narrow<Out>(m[i]) : narrow<Out>(static_cast<float>(m[i]));
}

template <class Out>
inline void store_product(const double* m, const double* w, int n, bool wide_m, bool wide, Out* out) {
  if (wide) {
    for (int i = 0; i < n; ++i) out[i] = narrow<Out>((wide_m ? m[i] : static_cast<double>(static_cast<float>(m[i]))) * w[i]);
  } else {
    for (int i = 0; i < n; ++i) out[i] = narrow<Out>(static_cast<float>(m[i]) * static_cast<float>(w[i]));
  }
}

template <class Out>
inline void store_as(const Piece& p, int64_t offset, int n, const double* m, const double* w, bool product) {
  Out* out = static_cast<Out*>(p.out.data) + offset;
  const bool wide_m = p.score.type == ScalarType::Double;
  if (product) {
    store_product(m, w, n, wide_m, wide_m || p.weight.type == ScalarType::Double, out);
  } else {
    store_m(m, n, wide_m, out);
  }
}

CLONES void store_floats(const Piece& p, int64_t offset, int n, const double* m, const double* w, bool product) {
  switch (p.out.type) {
    case ScalarType::Float: return store_as<float>(p, offset, n, m, w, product);
    case ScalarType::Double: return store_as<double>(p, offset, n, m, w, product);
    case ScalarType::Half: return store_as<Half>(p, offset, n, m, w, product);
    case ScalarType::BFloat16: return store_as<BFloat16>(p, offset, n, m, w, product);
    default: throw std::runtime_error("sparseprune: unsupported output dtype");
  }
}

CLONES void store_bool(const int32_t* counts, int n, uint8_t* out) {
  for (int i = 0; i < n; ++i) out[i] = counts[i] > 0;
}

CLONES void store_masked(const float* w, const uint8_t* keep, int n, float* out) {
  for (int i = 0; i < n; ++i) out[i] = w[i] * static_cast<float>(keep[i]);
}

CLONES void store_products(const float* w, const float* m, int n, float* out) {
  for (int i = 0; i < n; ++i) out[i] = w[i] * m[i];
}

CLONES void as_double(const uint8_t* keep, int n, double* m) {
  for (int i = 0; i < n; ++i) m[i] = keep[i];
}

}  // namespace

Vector::Vector(const std::vector<Tensor>& scores, const std::vector<Tensor>& factors, int64_t transform,
               const std::vector<Tensor>& weights, const std::vector<Tensor>& out)
    : transform_(transform), float_(factors.empty() && transform != SQUARE) {
  for (size_t i = 0; i < scores.size(); ++i) {
    const int64_t size = scores[i].numel();
    if (size == 0) continue;
    Piece piece{numel_, numel_ + size, Array(scores[i]), {}, {}, {}, 1};
    float_ &= piece.score.type != ScalarType::Double;
    if (!factors.empty()) {
      piece.factor = Array(factors[i]);
      piece.period = factors[i].numel();
    }
    if (!weights.empty()) piece.weight = Array(weights[i]);
    if (!out.empty()) piece.out = Array(out[i]);
    pieces_.push_back(piece);
    numel_ += size;
  }
}

size_t Vector::first_piece(int64_t element) const {
  const auto after = std::upper_bound(pieces_.begin(), pieces_.end(), element,
                                      [](int64_t e, const Piece& p) { return e < p.begin; });
  return static_cast<size_t>(after - pieces_.begin()) - 1;
}

// f(piece, its first element there, how many, their place in the tile) for every piece that has elements in tile b.
template <class F>
void Vector::for_each_part(int64_t b, const F& f) const {
  const int64_t begin = b * TILE, end = begin + count(b);
  for (size_t i = first_piece(begin); i < pieces_.size() && pieces_[i].begin < end; ++i) {
    const Piece& p = pieces_[i];
    const int64_t low = std::max(begin, p.begin);
    f(p, low - p.begin, static_cast<int>(std::min(end, p.end) - low), static_cast<int>(low - begin));
  }
}

template <class V>
void Vector::load(int64_t b, V* v) const {
  for_each_part(b, [&](const Piece& p, int64_t offset, int n, int at) {
    V* part = v + at;
    if (transform_ == ABS) {
      read_absolute(p.score, offset, n, part);
    } else {
      read(p.score, offset, n, part);
    }
    if constexpr (std::is_same_v<V, double>) {
      if (transform_ == SQUARE) square(part, n);
      if (p.factor.data != nullptr) {
        multiply_factor(p, offset, n, part);
        if (transform_ == ABS) absolute(part, n);
      }
    }
    if (transform_ != ABS) positive_zero(part, n);  // a product may be -0 too
  });
  std::fill(v + count(b), v + TILE, V{0});
}
template void Vector::load<float>(int64_t b, float* v) const;
template void Vector::load<double>(int64_t b, double* v) const;

void Vector::store_marks(int64_t b, bool weights, const uint8_t* keep) const {
  double m[TILE], w[TILE];
  for_each_part(b, [&](const Piece& p, int64_t offset, int n, int at) {
    if (!weights) {
      std::copy_n(keep + at, n, static_cast<uint8_t*>(p.out.data) + offset);
    } else if (p.weight.type == ScalarType::Float && p.out.type == ScalarType::Float) {
      const float* weight = static_cast<const float*>(p.weight.data) + offset;
      store_masked(weight, keep + at, n, static_cast<float*>(p.out.data) + offset);
    } else {
      as_double(keep + at, n, m);
      read(p.weight, offset, n, w);
      store_floats(p, offset, n, m, w, true);
    }
  });
}

void Vector::store_part(const Piece& p, int64_t offset, int n, Output output, const double* m,
                        const int32_t* counts) const {
  if (output == BOOL) {
    store_bool(counts, n, static_cast<uint8_t*>(p.out.data) + offset);
  } else if (output == COUNTS) {
    std::copy_n(counts, n, static_cast<int32_t*>(p.out.data) + offset);
  } else {
    double w[TILE];
    if (output == WEIGHTS) read(p.weight, offset, n, w);
    store_floats(p, offset, n, m, w, output == WEIGHTS);
  }
}

void Vector::store(int64_t b, Output output, const double* m, const int32_t* counts) const {
  for_each_part(b, [&](const Piece& p, int64_t offset, int n, int at) {
    store_part(p, offset, n, output, m + at, counts + at);
  });
}

void Vector::store(int64_t b, Output output, const float* m, const int32_t* counts) const {
  for_each_part(b, [&](const Piece& p, int64_t offset, int n, int at) {
    if (output == WEIGHTS && p.weight.type == ScalarType::Float && p.out.type == ScalarType::Float) {
      const float* weight = static_cast<const float*>(p.weight.data) + offset;
      return store_products(weight, m + at, n, static_cast<float*>(p.out.data) + offset);
    }
    double wide[TILE];
    if (output == M || output == WEIGHTS) std::copy_n(m + at, n, wide);
    store_part(p, offset, n, output, wide, counts + at);
  });
}

}  // namespace sparseprune
