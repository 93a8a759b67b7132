// Lanes are examples. U entries of a row by G outputs have their sums in registers while a line of pixels passes: entries
// share the loads of grad, outputs those of x. Lines are taken one after another, so that a line of grad comes from the
// first cache. Every sum has one chain, whatever U and G are. (No include of its own: see simd.h.)

constexpr int EACH_OUTPUTS = REGISTERS / 8;

// A line of pixels: x and grad at its first pixel, out at the first example. CUT: only a part of a vector.
template <int U, int G, bool CUT, class T>
INLINE void each_line(const Each<T>& p, const T* line, const T* grad, int64_t j, T* out, bool first,
                      typename Vec<T>::Part part) {
  using V = Vec<T>;
  const int64_t outputs = p.outputs * p.batch, batch = p.batch, step = p.x_pixel;
  const T* x[U];
  V sum[U][G];
  UNROLL for (int u = 0; u < U; ++u) x[u] = line + p.offset[j + u];
  UNROLL for (int u = 0; u < U; ++u) {
    UNROLL for (int g = 0; g < G; ++g) {
      sum[u][g] = first ? V::zero() : load<1, CUT, V>(out + u * outputs + g * batch, 0, part);
    }
  }
  for (int64_t w = 0; w < p.width; ++w, grad += outputs) {
    V signal[G];
    UNROLL for (int g = 0; g < G; ++g) signal[g] = load<1, CUT, V>(grad + g * batch, 0, part);
    UNROLL for (int u = 0; u < U; ++u) {
      const V pixel = load<1, CUT, V>(x[u] + w * step, 0, part);
      UNROLL for (int g = 0; g < G; ++g) sum[u][g].add_product(pixel, signal[g]);
    }
  }
  UNROLL for (int u = 0; u < U; ++u) {
    UNROLL for (int g = 0; g < G; ++g) {
      T* const to = out + u * outputs + g * batch;
      if (CUT) sum[u][g].store(to, part);
      else sum[u][g].store(to);
    }
  }
}

// As many entries of [j, end) as fit U, then on with what is left: U, U / 2, ..., 1.
template <int U, int G, bool CUT, class T>
INLINE void each_entries(const Each<T>& p, const T* line, const T* grad, int64_t j, int64_t end, T* out, bool first,
                         typename Vec<T>::Part part) {
  const int64_t size = p.outputs * p.batch;
  for (; j + U <= end; j += U, out += U * size) each_line<U, G, CUT>(p, line, grad, j, out, first, part);
  if constexpr (U > 1) {
    if (j < end) each_entries<U / 2, G, CUT>(p, line, grad, j, end, out, first, part);
  }
}

template <bool CUT, class T>
void each_examples(const Each<T>& p, int64_t h, const T* grad, int64_t n, int64_t j, int64_t end, typename Vec<T>::Part part) {
  const T* const line = p.x + h * p.x_row + n;
  T* const out = p.out + j * p.outputs * p.batch + n;
  int64_t o = 0;
  for (; o + EACH_OUTPUTS <= p.outputs; o += EACH_OUTPUTS) {
    each_entries<4, EACH_OUTPUTS, CUT>(p, line, grad + o * p.batch + n, j, end, out + o * p.batch, h == 0, part);
  }
  for (; o < p.outputs; ++o) each_entries<8, 1, CUT>(p, line, grad + o * p.batch + n, j, end, out + o * p.batch, h == 0, part);
}

// The entries [j, end) of a row.
template <class T>
void each_row(const Each<T>& p, int64_t row, int64_t j, int64_t end) {
  using V = Vec<T>;
  for (int64_t h = 0; h < p.height; ++h) {
    const T* const grad = p.grad + (row * p.height + h) * p.width * p.outputs * p.batch;
    int64_t n = 0;
    for (; n + V::LANES <= p.batch; n += V::LANES) each_examples<false>(p, h, grad, n, j, end, V::part(0));
    if (n < p.batch) each_examples<true>(p, h, grad, n, j, end, V::part(static_cast<int>(p.batch - n)));
  }
}
