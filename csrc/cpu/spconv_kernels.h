// The walk behind all convolutions: for a row of entries, tiles of its own pixels stay in registers while the entries pass.
// GATHER: own += weight * other. DOT: the gradient of a weight, own . other. BOTH, of one load of other.
// (No include of its own: see simd.h.)

// How many stretches a tile takes; DOT and BOTH keep own in registers too.
template <Mode mode>
constexpr int TALL = ISA_BYTES == 64 ? (mode == BOTH ? 2 : 4) : (mode == BOTH ? 1 : 2);

template <class T, Mode mode, int G, int R>
struct ConvTile {
  using C = Sum<T>;
  using V = Vec<C>;
  using Part = typename V::Part;
  static constexpr int LANES = V::LANES;

  V sum[G][R], own[G][R];
  Part part[G];
  const T* base[G];

  // R = 1 stretches may be narrower than a register.
  INLINE V load(const T* p, int g) const {
    if constexpr (R == 1) return V::load(p, part[g]);
    else return V::load(p);
  }
  INLINE void store(V v, T* p, int g) const {
    if constexpr (R == 1) v.store(p, part[g]);
    else v.store(p);
  }

  INLINE void walk(const Walk<T, Sum<T>>& w, const Patch& patch, const Stretch* s, int64_t row, V* dots) {
    UNROLL for (int g = 0; g < G; ++g) {
      part[g] = V::part(R == 1 ? s[g].n : 0);
      base[g] = w.other + s[g].other;
      UNROLL for (int r = 0; r < R; ++r) {
        if constexpr (mode != DOT) sum[g][r] = begin(w, s[g].own + r * LANES, row, g);
        if constexpr (mode != GATHER) own[g][r] = load(w.own + row * w.own_plane + s[g].own + r * LANES, g);
      }
    }
    const int32_t* ranks = w.begin + row * w.taps;
    if constexpr (mode != GATHER) dots -= ranks[0];
    for (const auto& run : patch.runs) {
      for (int64_t j = ranks[run.first]; j < ranks[run.second]; ++j) entry(w, j, dots);
    }
    if constexpr (mode != DOT) {
      UNROLL for (int g = 0; g < G; ++g) {
        UNROLL for (int r = 0; r < R; ++r) store(sum[g][r], w.out + row * w.own_plane + s[g].own + r * LANES, g);
      }
    }
  }

 private:
  INLINE V begin(const Walk<T, Sum<T>>& w, int64_t at_own, int64_t row, int g) const {
    if (!w.first) return load(w.out + row * w.own_plane + at_own, g);
    return w.bias == nullptr ? V::zero() : V::all(widen(w.bias[row]));
  }

  INLINE void entry(const Walk<T, Sum<T>>& w, int64_t j, V* dots) {
    const int64_t offset = w.offset[j];
    if constexpr (R > 1) __builtin_prefetch(base[0] + w.offset[j + AHEAD]);
    V weight, dot[2];
    if constexpr (mode != DOT) weight = V::all(w.weight[j]);
    if constexpr (mode != GATHER) dot[0] = dots[j], dot[1] = V::zero();
    UNROLL for (int g = 0; g < G; ++g) {
      const T* other = base[g] + offset;
      asm("" : "+r"(other));  // one address for R loads: the compiler would make R
      UNROLL for (int r = 0; r < R; ++r) {
        const V x = load(other + r * LANES, g);
        if constexpr (mode != DOT) sum[g][r].add_product(weight, x);
        if constexpr (mode != GATHER) dot[r % 2].add_product(own[g][r], x);
      }
    }
    if constexpr (mode != GATHER) dots[j] = dot[0] + dot[1];
  }
};

// Rows [first, last) of as many tiles of G stretches as there are from `from` on; returns where they end.
template <class T, Mode mode, int G, int R>
size_t conv_tiles(const Walk<T, Sum<T>>& w, const Patch& patch, const std::vector<Stretch>& stretches, size_t from,
                  int64_t first, int64_t last, Vec<Sum<T>>* dots) {
  for (; from + G <= stretches.size(); from += G) {
    for (int64_t row = first; row < last; ++row) {
      ConvTile<T, mode, G, R> tile;
      tile.walk(w, patch, stretches.data() + from, row, dots);
    }
  }
  return from;
}

// result (+)= the sums of the lanes of n dots.
template <class C>
void add_lanes(Vec<C>* dots, int64_t n, bool add, C* result) {
  using V = Vec<C>;
  for (int64_t i = 0; i < n; i += V::LANES) {
    const auto part = V::part(static_cast<int>(std::min<int64_t>(n - i, V::LANES)));
    V sum = V::sums(dots + i);
    if (add) sum = sum + V::load(result + i, part);
    sum.store(result + i, part);
  }
}

template <class T, Mode mode>
void conv_rows(const Walk<T, Sum<T>>& w, int64_t first, int64_t last, const std::vector<Patch>& patches, void* scratch) {
  using V = Vec<Sum<T>>;
  constexpr int G = TALL<mode>;
  V* dots = static_cast<V*>(scratch);
  const int64_t step = mode == GATHER && w.pixels_first ? std::max<int64_t>(last - first, 1) : 1;
  for (int64_t row = first; row < last; row += step) {
    const int64_t begin = w.begin[row * w.taps], n = w.begin[(row + 1) * w.taps] - begin;
    if constexpr (mode != GATHER) {
      for (int64_t i = 0; i < n + V::LANES - 1; ++i) dots[i] = V::zero();
    }
    for (const Patch& p : patches) {
      size_t at = conv_tiles<T, mode, G, WIDE>(w, p, p.wide, 0, row, row + step, dots);
      if constexpr (G > 2) at = conv_tiles<T, mode, 2, WIDE>(w, p, p.wide, at, row, row + step, dots);
      if constexpr (G > 1) conv_tiles<T, mode, 1, WIDE>(w, p, p.wide, at, row, row + step, dots);
      at = conv_tiles<T, mode, 4, 1>(w, p, p.narrow, 0, row, row + step, dots);
      conv_tiles<T, mode, 1, 1>(w, p, p.narrow, at, row, row + step, dots);
    }
    if constexpr (mode != GATHER) add_lanes(dots, n, w.add, w.sums + begin);
  }
}

// All of `mode` for the rows from first up to last; scratch: room for the dots of a row, and LANES more.
template <class T>
void conv_walk(Mode mode, const Walk<T, Sum<T>>& w, int64_t first, int64_t last, const std::vector<Patch>& patches,
               void* scratch) {
  if (mode == GATHER) conv_rows<T, GATHER>(w, first, last, patches, scratch);
  else if (mode == DOT) conv_rows<T, DOT>(w, first, last, patches, scratch);
  else conv_rows<T, BOTH>(w, first, last, patches, scratch);
}
