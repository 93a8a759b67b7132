// One sample at a time: random numbers, the fields of all units, the gradient step. Rows lie in the first cache.

typedef Vec<float> F;
typedef int32_t I __attribute__((vector_size(ISA_BYTES)));

INLINE F root(F x) {
#if ISA_BYTES == 64
  return {(F::V)_mm512_maskz_sqrt_ps(0xFFFF, (__m512)x.v)};  // without a mask gcc 12 warns
#elif ISA_BYTES == 32
  return {(F::V)_mm256_sqrt_ps((__m256)x.v)};
#else
  UNROLL for (int i = 0; i < F::LANES; ++i) x.v[i] = std::sqrt(x.v[i]);
  return x;
#endif
}

// sqrt(-2 log u) for u = (word >> 1 | 1) / 2^31: the IEEE operations of reference/normals.py, in its order.
INLINE F radius(I word) {
  const F::V u = __builtin_convertvector((word >> 1 & 0x7FFFFFFF) | 1, F::V) * 0x1p-31f;
  const I bits = (I)u, exponent = (bits - 0x3F3504F3) >> 23;  // of u / sqrt(1/2)
  const F::V f = (F::V)(bits - (exponent << 23)) - 1.0f, e = __builtin_convertvector(exponent, F::V);
  const F::V square = f * f;
  F::V p = f * 7.0376836292e-2f - 1.1514610310e-1f;
  p = p * f + 1.1676998740e-1f;
  p = p * f - 1.2420140846e-1f;
  p = p * f + 1.4249322787e-1f;
  p = p * f - 1.6668057665e-1f;
  p = p * f + 2.0000714765e-1f;
  p = p * f - 2.4999993993e-1f;
  p = p * f + 3.3333331174e-1f;
  const F::V log = ((p * f - 0.5f) * square + f) + e * 0.69314718056f;
  return root({log * -2.0f});
}

// Cosine and sine of a uniform angle: of one in [-pi/4, pi/4) by the low 30 bits, exchanged and negated by the high two.
INLINE void direction(I word, F* cosine, F* sine) {
  const F::V r = __builtin_convertvector((I)(word << 2), F::V) * 3.657295198167899e-10f;  // pi / 2^33
  const F::V z = r * r;
  const F::V s = ((z * -1.9515295891e-4f + 8.3321608736e-3f) * z - 1.6666654611e-1f) * (z * r) + r;
  const F::V c = ((z * 2.443315711809948e-5f - 1.388731625493765e-3f) * z + 4.166664568298827e-2f) * (z * z) - z * 0.5f + 1.0f;
  const I exchanged = word << 1 >> 31, sign = word & INT32_MIN;
  cosine->v = (F::V)(((exchanged & (I)s) | (~exchanged & (I)c)) ^ sign);
  sine->v = (F::V)(((exchanged & (I)c) | (~exchanged & (I)s)) ^ sign);
}

// The even or odd lanes of two registers.
template <int odd, int... K>
INLINE I words(I a, I b, std::integer_sequence<int, K...>) {
  return __builtin_shufflevector(a, b, 2 * K + odd...);
}

// Standard normal numbers of one sample, `count` filled up to SGD_WIDE: pair 64 b + i gives x[128 b + i] and x[128 b + 64 + i].
template <class T>
void normals(const SgdData& d, uint32_t sample, int64_t count, T* x) {
  using Lanes = std::make_integer_sequence<int, F::LANES>;
  alignas(64) uint64_t bits[BATCH];
  for (int64_t b = 0; b < count; b += 2 * BATCH, x += 2 * BATCH) {
    random_batch(b / 2, sample, NORMAL, d.seed, d.stream, bits);
    for (int i = 0; i < BATCH; i += F::LANES) {
      I pair[2];
      std::memcpy(pair, bits + i, sizeof pair);
      const F r = radius(words<0>(pair[0], pair[1], Lanes()));
      F c, s;
      direction(words<1>(pair[0], pair[1], Lanes()), &c, &s);
      alignas(64) float numbers[2][F::LANES];
      F{r.v * c.v}.store(numbers[0]);
      F{r.v * s.v}.store(numbers[1]);
      for (int l = 0; l < F::LANES; ++l) {
        x[i + l] = numbers[0][l];
        x[BATCH + i + l] = numbers[1][l];
      }
    }
  }
}

// field[k] = w_k . x for SGD_ROWS rows.
template <class T>
INLINE void fields(const T* w, int64_t stride, const T* x, T* field) {
  using V = Vec<T>;
  V sum[SGD_ROWS][2];
  UNROLL for (int k = 0; k < SGD_ROWS; ++k) sum[k][0] = sum[k][1] = V::zero();
  for (int64_t i = 0; i < stride; i += 2 * V::LANES) {
    UNROLL for (int h = 0; h < 2; ++h) {
      const V at = V::load(x + i + h * V::LANES);
      UNROLL for (int k = 0; k < SGD_ROWS; ++k) sum[k][h].add_product(V::load(w + k * stride + i + h * V::LANES), at);
    }
  }
  for (int k = 0; k < SGD_ROWS; ++k) {
    const V total = sum[k][0] + sum[k][1];
    field[k] = 0;
    UNROLL for (int l = 0; l < V::LANES; ++l) field[k] += total.v[l];
  }
}

// w_k += step[k] x for SGD_ROWS rows.
template <class T>
INLINE void move(T* w, int64_t stride, const T* x, const T* step) {
  using V = Vec<T>;
  V factor[SGD_ROWS];
  UNROLL for (int k = 0; k < SGD_ROWS; ++k) factor[k] = V::all(step[k]);
  for (int64_t i = 0; i < stride; i += V::LANES) {
    const V at = V::load(x + i);
    UNROLL for (int k = 0; k < SGD_ROWS; ++k) {
      V row = V::load(w + k * stride + i);
      row.add_product(factor[k], at);
      row.store(w + k * stride + i);
    }
  }
}

// Samples [first, first + count) of one run. Rows of zeros follow the units, up to a multiple of SGD_ROWS.
template <class T>
void online_sgd(SgdRun<T>& run, const SgdData& d, int64_t first, int64_t count) {
  const int64_t rows = (run.units + SGD_ROWS - 1) / SGD_ROWS * SGD_ROWS;
  const Lines<T> scratch = lines<T>(run.stride + SGD_WIDE + 2 * rows);
  T *const x = scratch.get(), *const field = x + run.stride + SGD_WIDE, *const step = field + rows;
  std::fill_n(step, rows, T(0));
  const T root_n = std::sqrt(static_cast<T>(run.inputs)), rate = static_cast<T>(d.rate);
  const T half_root = static_cast<T>(0.70710678118654752440), slope = static_cast<T>(0.79788456080286535588);
  for (int64_t t = first; t < first + count; ++t) {
    normals(d, static_cast<uint32_t>(t), run.inputs + (d.noise != 0), x);
    T error = d.noise != 0 ? -static_cast<T>(d.noise) * x[run.inputs] : T(0);
    std::fill(x + run.inputs, x + run.stride, T(0));
    for (int64_t k = 0; k < rows; k += SGD_ROWS) fields(run.w.get() + k * run.stride, run.stride, x, field + k);
    for (int64_t k = 0; k < run.units; ++k) {
      field[k] /= root_n;
      step[k] = std::erf(field[k] * half_root);  // the unit's output, for now
      error += (k < run.students ? run.v[k] : -run.v[k]) * step[k];
    }
    for (int64_t k = 0; k < run.units; ++k) {
      if (k >= run.students) {
        step[k] = 0;
        continue;
      }
      const T output = step[k];
      step[k] = -rate / root_n * run.v[k] * slope * std::exp(T(-0.5) * field[k] * field[k]) * error;
      run.v[k] -= rate / static_cast<T>(run.inputs) * output * error;
    }
    for (int64_t k = 0; k < run.students; k += SGD_ROWS) move(run.w.get() + k * run.stride, run.stride, x, step + k);
  }
}
