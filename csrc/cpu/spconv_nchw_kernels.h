// Copies between images and their flat form, and the walk over the entries of a panel for a tile of N registers of own
// pixels. (No include of its own: see simd.h.)

constexpr int TILE = REGISTERS / 2;  // registers of a tile at most

template <class C>
int64_t flat_lanes() {
  return Vec<C>::LANES;
}
inline int64_t flat_tile() { return TILE; }

// n pixels, `step` apart in an image, from it or (BACK) to it.
template <bool BACK, class T, class C>
INLINE void copy_row(T* image, int64_t step, C* flat, int64_t n) {
  using V = Vec<C>;
  int64_t j = 0;
  if (step != 1) {
    if constexpr (!BACK) {
      const auto most = V::part(V::LANES - 1);  // what is behind the last even number may be in no image
      for (; step == 2 && j + V::LANES <= n; j += V::LANES) {
        V::evens(V::load(image + 2 * j), V::load(image + 2 * j + V::LANES, most)).store(flat + j);
      }
    }
    for (; j < n; ++j) {
      if constexpr (BACK) image[j * step] = narrow<T>(flat[j]);
      else flat[j] = widen(image[j * step]);
    }
    return;
  }
  for (; j + V::LANES <= n; j += V::LANES) {
    if constexpr (BACK) V::load(flat + j).store(image + j);
    else V::load(image + j).store(flat + j);
  }
  if (j == n) return;
  const auto part = V::part(static_cast<int>(n - j));
  if constexpr (BACK) V::load(flat + j, part).store(image + j, part);
  else V::load(image + j, part).store(flat + j, part);
}

// The flat form of an image; what lies outside of it stays.
template <class T, class C>
void flatten(const Image<const T>& x, const Window& rows, const Window& columns, const Flat<C>& to) {
  for (int64_t r = 0; r < rows.runs; ++r) {
    for (int64_t q = 0; q < columns.runs; ++q) {
      const int64_t top = rows.begin(r), bottom = rows.end(r), left = columns.begin(q), right = columns.end(q);
      const int64_t first = (rows.first + rows.step * top + r) * x.row + columns.first + columns.step * left + q;
      for (int64_t c = to.begin; c < to.end; ++c) {
        const T* from = x.data + c * x.channel + first;
        C* at = to.data + c * to.plane + (r * columns.runs + q) * to.run + top * to.pitch + left;
        for (int64_t i = top; i < bottom; ++i, from += rows.step * x.row, at += to.pitch) {
          copy_row<false>(from, columns.step, at, right - left);
        }
      }
    }
  }
}

// The image of a flat form with one run.
template <class T, class C>
void unflatten(const Flat<C>& from, const Window& rows, const Window& columns, const Image<T>& x) {
  for (int64_t c = from.begin; c < from.end; ++c) {
    C* at = from.data + c * from.plane;
    T* to = x.data + c * x.channel + rows.first * x.row + columns.first;
    for (int64_t i = 0; i < rows.length; ++i, to += rows.step * x.row, at += from.pitch) {
      copy_row<true>(to, columns.step, at, columns.length);
    }
  }
}

// own = bias + sums of weight * picked. Between the segments of a row its sums are in `partial`.
template <int N, class C>
void gather_flat(const Picked<C>& picked, const C* weight, const C* bias, C* partial, C* own, int64_t own_plane) {
  using V = Vec<C>;
  const Picked<C> p = picked;  // a copy: after a store the compiler would load fields again
  for (const Segment* s = p.segments; s != p.end; ++s) {
    C* const kept = partial + s->row * (N * V::LANES);
    V sum[N];
    if (s->first) {
      const V begin = bias == nullptr ? V::zero() : V::all(bias[s->row]);
      UNROLL for (int i = 0; i < N; ++i) sum[i] = begin;
    } else {
      UNROLL for (int i = 0; i < N; ++i) sum[i] = V::load(kept + i * V::LANES);
    }
    const int32_t* offset = p.offset + s->begin;
    const C* w = weight + s->begin;
    for (int32_t n = s->count; n > 0; --n, ++offset, ++w) {
      const C* at = p.copy + *offset;
      asm("" : "+r"(at));  // with an index in the address, a load and its product would issue apart
      const V factor = V::all(*w);
      UNROLL for (int i = 0; i < N; ++i) sum[i].add_product(factor, V::load(at + i * V::LANES));
    }
    C* const to = s->last ? own + s->row * own_plane : kept;
    UNROLL for (int i = 0; i < N; ++i) sum[i].store(to + i * V::LANES);
  }
}

// sums[entry] += own . picked, the sums of lanes taken for as many entries as a register has lanes.
template <int N, class C>
void dot_flat(const Picked<C>& picked, const C* own, int64_t own_plane, C* sums) {
  using V = Vec<C>;
  constexpr int CHAINS = 4;
  const Picked<C> p = picked;
  V dots[V::LANES];
  for (int h = 0; h < V::LANES; ++h) dots[h] = V::zero();
  for (const Segment* s = p.segments; s != p.end; ++s) {
    V left[N];
    UNROLL for (int i = 0; i < N; ++i) left[i] = V::load(own + s->row * own_plane + i * V::LANES);
    for (int32_t j = s->begin, end = s->begin + s->count; j < end; j += V::LANES) {
      const int n = std::min<int32_t>(V::LANES, end - j);
      for (int h = 0; h < n; ++h) {
        const C* at = p.copy + p.offset[j + h];
        asm("" : "+r"(at));
        V dot[CHAINS];
        UNROLL for (int i = 0; i < CHAINS; ++i) dot[i] = left[i] * V::load(at + i * V::LANES);
        UNROLL for (int i = CHAINS; i < N; ++i) dot[i % CHAINS].add_product(left[i], V::load(at + i * V::LANES));
        UNROLL for (int i = 1; i < CHAINS; ++i) dot[0] = dot[0] + dot[i];
        dots[h] = dot[0];
      }
      const auto part = V::part(n);
      (V::sums(dots) + V::load(sums + j, part)).store(sums + j, part);
    }
  }
}

// A tile of n registers: 4, 8 or, of 32 that there are, 16.
template <class C>
void gather_tile(int64_t n, const Picked<C>& p, const C* weight, const C* bias, C* partial, C* own, int64_t own_plane) {
  if (n == 4) gather_flat<4>(p, weight, bias, partial, own, own_plane);
  else if (n == 8) gather_flat<8>(p, weight, bias, partial, own, own_plane);
  else gather_flat<TILE>(p, weight, bias, partial, own, own_plane);
}
template <class C>
void dot_tile(int64_t n, const Picked<C>& p, const C* own, int64_t own_plane, C* sums) {
  if (n == 4) dot_flat<4>(p, own, own_plane, sums);
  else if (n == 8) dot_flat<8>(p, own, own_plane, sums);
  else dot_flat<TILE>(p, own, own_plane, sums);
}
