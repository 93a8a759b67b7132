// Vec<float>, Vec<double>: one register of the instruction set at hand. Included by each_isa.h alone, once per set.

constexpr int REGISTERS = ISA_BYTES == 64 ? 32 : 16;

template <class C>
struct Vec {
  static constexpr int LANES = ISA_BYTES / sizeof(C);
  using Lanes = std::make_integer_sequence<int, LANES>;
  typedef C V __attribute__((vector_size(ISA_BYTES)));
  typedef C Loose __attribute__((vector_size(ISA_BYTES), aligned(alignof(C)), may_alias));  // memcpy goes by 32 bytes
  V v;

  // The first n lanes, 0 <= n <= LANES.
  struct Part {
    int n;
#if ISA_BYTES == 64
    uint32_t mask;
#elif ISA_BYTES == 32
    __m256i mask;
#endif
  };

  static INLINE Vec zero() { return {V{}}; }
  static INLINE Vec all(C x) { return {x - V{}}; }  // x + 0 would lose the sign of -0
  static INLINE Part part(int n) {
#if ISA_BYTES == 64
    return {n, (1u << n) - 1};
#elif ISA_BYTES == 32
    if constexpr (sizeof(C) == 4) {
      return {n, _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))};
    } else {
      return {n, _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3))};
    }
#else
    return {n};
#endif
  }

  static INLINE Vec load(const C* p) { return {*reinterpret_cast<const Loose*>(p)}; }
  INLINE void store(C* p) const { *reinterpret_cast<Loose*>(p) = v; }

  // Lanes outside the part are 0, and their memory is not touched.
  static INLINE Vec load(const C* p, Part part) {
#if ISA_BYTES == 64
    if constexpr (sizeof(C) == 4) return {(V)_mm512_maskz_loadu_ps(static_cast<__mmask16>(part.mask), p)};
    else return {(V)_mm512_maskz_loadu_pd(static_cast<__mmask8>(part.mask), p)};
#elif ISA_BYTES == 32
    if constexpr (sizeof(C) == 4) return {(V)_mm256_maskload_ps(p, part.mask)};
    else return {(V)_mm256_maskload_pd(p, part.mask)};
#else
    C lanes[LANES] = {};
    for (int i = 0; i < part.n; ++i) lanes[i] = p[i];
    return load(lanes);
#endif
  }
  INLINE void store(C* p, Part part) const {
#if ISA_BYTES == 64
    if constexpr (sizeof(C) == 4) _mm512_mask_storeu_ps(p, static_cast<__mmask16>(part.mask), (__m512)v);
    else _mm512_mask_storeu_pd(p, static_cast<__mmask8>(part.mask), (__m512d)v);
#elif ISA_BYTES == 32
    if constexpr (sizeof(C) == 4) _mm256_maskstore_ps(p, part.mask, (__m256)v);
    else _mm256_maskstore_pd(p, part.mask, (__m256d)v);
#else
    for (int i = 0; i < part.n; ++i) p[i] = v[i];
#endif
  }

  // Past the caches, to an address that LANES numbers divide; fence() before others read.
  INLINE void stream(C* p) const {
#if ISA_BYTES == 64
    _mm512_stream_si512(reinterpret_cast<__m512i*>(p), (__m512i)v);
#elif ISA_BYTES == 32
    _mm256_stream_si256(reinterpret_cast<__m256i*>(p), (__m256i)v);
#else
    store(p);
#endif
  }
  static INLINE void fence() {
#if ISA_BYTES > 16
    _mm_sfence();
#endif
  }

  // bfloat16 in memory, for Vec<float>: LANES numbers of two bytes.
  typedef uint16_t Halves __attribute__((vector_size(ISA_BYTES / 2)));
  typedef uint16_t LooseHalves __attribute__((vector_size(ISA_BYTES / 2), aligned(2), may_alias));
  typedef uint32_t Words __attribute__((vector_size(ISA_BYTES)));
  static INLINE Vec load(const BFloat16* p) { return widened(*reinterpret_cast<const LooseHalves*>(p)); }
  static INLINE Vec load(const BFloat16* p, Part part) {
#if ISA_BYTES == 64
    return widened((Halves)_mm256_maskz_loadu_epi16(static_cast<__mmask16>(part.mask), p));
#else
    BFloat16 lanes[LANES] = {};
    for (int i = 0; i < part.n; ++i) lanes[i] = p[i];
    return load(lanes);
#endif
  }
  INLINE void store(BFloat16* p) const { *reinterpret_cast<LooseHalves*>(p) = narrowed(); }
  INLINE void store(BFloat16* p, Part part) const {
#if ISA_BYTES == 64
    _mm256_mask_storeu_epi16(p, static_cast<__mmask16>(part.mask), (__m256i)narrowed());
#else
    BFloat16 lanes[LANES];
    store(lanes);
    for (int i = 0; i < part.n; ++i) p[i] = lanes[i];
#endif
  }

  // Lane i = p[at[i]].
  template <class T>
  static INLINE Vec gather(const T* p, const int32_t* at) {
#if ISA_BYTES == 64  // with a mask, as gcc 12 warns without
    if constexpr (std::is_same_v<T, float>) {
      return {(V)_mm512_mask_i32gather_ps(__m512{}, 0xFFFF, _mm512_loadu_si512(at), p, 4)};
    }
    if constexpr (std::is_same_v<T, double>) {
      return {(V)_mm512_mask_i32gather_pd(__m512d{}, 0xFF, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)), p, 8)};
    }
#endif
    Vec x;
    UNROLL for (int i = 0; i < LANES; ++i) x.v[i] = widen(p[at[i]]);
    return x;
  }

  // this += a b. Fused where the set has it: written out, as the build forbids contraction; plain code must not call fmaf.
  INLINE void add_product(Vec a, Vec b) {
#if ISA_BYTES == 64
    if constexpr (sizeof(C) == 4) v = (V)_mm512_fmadd_ps((__m512)a.v, (__m512)b.v, (__m512)v);
    else v = (V)_mm512_fmadd_pd((__m512d)a.v, (__m512d)b.v, (__m512d)v);
#elif ISA_BYTES == 32
    if constexpr (sizeof(C) == 4) v = (V)_mm256_fmadd_ps((__m256)a.v, (__m256)b.v, (__m256)v);
    else v = (V)_mm256_fmadd_pd((__m256d)a.v, (__m256d)b.v, (__m256d)v);
#else
    v += a.v * b.v;
#endif
  }
  INLINE Vec operator+(Vec b) const { return {v + b.v}; }
  INLINE Vec operator*(Vec b) const { return {v * b.v}; }

  // Lanes 0, 2, ... of a, then of b.
  static INLINE Vec evens(Vec a, Vec b) { return evens(a, b, Lanes()); }

  // Lane i = the sum of the lanes of x[i], i < LANES.
  static INLINE Vec sums(const Vec* x) {
    Vec t[LANES];
    UNROLL for (int i = 0; i < LANES; ++i) t[i] = x[i];
    return added<1>(t);
  }
  // One step of sums(), for N = 1, 2, 4 ...: a and b are of N vectors each. Neighbours are added, lanes of 16 bytes, then 16
  // bytes and 16 bytes: both are shuffles that need no register of places.
  template <int N>
  static INLINE Vec merged(Vec a, Vec b) {
    return every_other<N, 0>(a, b, Lanes()) + every_other<N, 1>(a, b, Lanes());
  }
  // x[i] lane l <-> x[l] lane i: at each distance, in squares of 2 x 2.
  template <int distance = 1>
  static INLINE void transpose(Vec* x) {
    if constexpr (distance < LANES) {
      UNROLL for (int i = 0; i < LANES; ++i) {
        if (i & distance) continue;
        const Vec low = lower<distance>(x[i], x[i + distance]), high = upper<distance>(x[i], x[i + distance]);
        x[i] = low;
        x[i + distance] = high;
      }
      transpose<2 * distance>(x);
    }
  }

 private:
  static INLINE Vec widened(Halves h) {  // gcc's own conversion goes by halves of a register
#if ISA_BYTES == 64
    const Words w = (Words)_mm512_maskz_cvtepu16_epi32(0xFFFF, (__m256i)h);  // without a mask gcc 12 warns
#elif ISA_BYTES == 32
    const Words w = (Words)_mm256_cvtepu16_epi32((__m128i)h);
#else
    const Words w = __builtin_convertvector(h, Words);
#endif
    return {(V)(w << 16)};
  }
  INLINE Halves narrowed() const {
    const Words u = (Words)v, rounded = (u + 0x7FFF + (u >> 16 & 1)) >> 16;
    const Words number = (Words)(v == v);  // all ones where it is not NaN
    const Words bits = (number & rounded) | (~number & 0x7FC0);
#if ISA_BYTES == 64
    return (Halves)_mm512_maskz_cvtepi32_epi16(0xFFFF, (__m512i)bits);
#else
    return __builtin_convertvector(bits, Halves);
#endif
  }

  template <int N>
  static INLINE Vec added(Vec* x) {
    if constexpr (N == LANES) {
      return x[0];
    } else {
      UNROLL for (int i = 0; i < LANES / N / 2; ++i) x[i] = merged<N>(x[2 * i], x[2 * i + 1]);
      return added<2 * N>(x);
    }
  }

  template <int... I>
  static INLINE Vec evens(Vec a, Vec b, std::integer_sequence<int, I...>) {
    return {__builtin_shufflevector(a.v, b.v, (2 * I)...)};
  }
  // The units of a, then those of b, that are even (or odd) in their group.
  template <int N, int odd, int... I>
  static INLINE Vec every_other(Vec a, Vec b, std::integer_sequence<int, I...>) {
    constexpr int QUAD = 16 / sizeof(C), UNIT = N < QUAD ? 1 : QUAD, GROUP = N < QUAD ? QUAD : LANES;
    return {__builtin_shufflevector(a.v, b.v, every_other_lane(I, UNIT, GROUP, odd)...)};
  }
  static constexpr int every_other_lane(int i, int unit, int group, int odd) {
    const int from = 2 * (i % group / unit) + odd, units = group / unit;
    return from / units * LANES + i / group * group + from % units * unit + i % unit;
  }

  // Of each pair of lanes that are `distance` apart the lower (or upper) one, a's to the lower place and b's to the upper.
  template <int distance>
  static INLINE Vec lower(Vec a, Vec b) {
    return lower<distance>(a, b, Lanes());
  }
  template <int distance>
  static INLINE Vec upper(Vec a, Vec b) {
    return upper<distance>(a, b, Lanes());
  }
  template <int distance, int... I>
  static INLINE Vec lower(Vec a, Vec b, std::integer_sequence<int, I...>) {
    return {__builtin_shufflevector(a.v, b.v, ((I & distance) ? LANES + I - distance : I)...)};
  }
  template <int distance, int... I>
  static INLINE Vec upper(Vec a, Vec b, std::integer_sequence<int, I...>) {
    return {__builtin_shufflevector(a.v, b.v, ((I & distance) ? LANES + I : I + distance)...)};
  }
};

// Vector r of R that stand in a row of memory; CUT: the last of them has only the part.
template <int R, bool CUT, class V, class T>
INLINE V load(const T* p, int r, typename V::Part part) {
  return CUT && r == R - 1 ? V::load(p + r * V::LANES, part) : V::load(p + r * V::LANES);
}
