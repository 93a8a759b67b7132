// Lanes are examples. U entries of a row by G outputs have their sums in registers while some lines of pixels pass: entries
// share the loads of grad, outputs those of x. So few lines that their part of grad stays in the first cache for all
// entries of the row. Every sum has one chain, whatever U and G are. (No include of its own: see simd.h.)

constexpr int EACH_OUTPUTS = REGISTERS / 8, EACH_BYTES = 16384;

// Lines [h, end) of x and grad from some example and output on. CUT: only a part of a vector.
template <int U, int G, bool CUT, class T>
INLINE void each_lines(const Each<T>& p, int64_t h, int64_t end, const T* from, const T* grad, int64_t j, T* out,
                       typename Vec<T>::Part part) {
  using V = Vec<T>;
  const int64_t outputs = p.outputs * p.batch, batch = p.batch, step = p.x_pixel;
  const bool first = h == 0;
  const T* x[U];
  V sum[U][G];
  UNROLL for (int u = 0; u < U; ++u) x[u] = from + h * p.x_row + p.offset[j + u];
  UNROLL for (int u = 0; u < U; ++u) {
    UNROLL for (int g = 0; g < G; ++g) {
      sum[u][g] = first ? V::zero() : load<1, CUT, V>(out + u * outputs + g * batch, 0, part);
    }
  }
  for (grad += h * p.width * outputs; h < end; ++h) {
    for (int64_t w = 0; w < p.width; ++w, grad += outputs) {
      V signal[G];
      UNROLL for (int g = 0; g < G; ++g) signal[g] = load<1, CUT, V>(grad + g * batch, 0, part);
      UNROLL for (int u = 0; u < U; ++u) {
        const V pixel = load<1, CUT, V>(x[u] + w * step, 0, part);
        UNROLL for (int g = 0; g < G; ++g) sum[u][g].add_product(pixel, signal[g]);
      }
    }
    UNROLL for (int u = 0; u < U; ++u) x[u] += p.x_row;
  }
  UNROLL for (int u = 0; u < U; ++u) {
    UNROLL for (int g = 0; g < G; ++g) {
      T* const to = out + u * outputs + g * batch;
      if (CUT) sum[u][g].store(to, part);
      else sum[u][g].store(to);
    }
  }
}

// As many entries of [j, last) as fit U, then on with what is left: U, U / 2, ..., 1.
template <int U, int G, bool CUT, class T>
INLINE void each_entries(const Each<T>& p, int64_t h, int64_t end, const T* from, const T* grad, int64_t j, int64_t last,
                         T* out, typename Vec<T>::Part part) {
  const int64_t size = p.outputs * p.batch;
  for (; j + U <= last; j += U, out += U * size) each_lines<U, G, CUT>(p, h, end, from, grad, j, out, part);
  if constexpr (U > 1) {
    if (j < last) each_entries<U / 2, G, CUT>(p, h, end, from, grad, j, last, out, part);
  }
}

template <bool CUT, class T>
void each_examples(const Each<T>& p, int64_t h, int64_t end, int64_t n, const T* grad, int64_t j, int64_t last,
                   typename Vec<T>::Part part) {
  T* out = p.out + j * p.outputs * p.batch + n;
  grad += n;
  int64_t o = 0;
  for (; o + EACH_OUTPUTS <= p.outputs; o += EACH_OUTPUTS, grad += EACH_OUTPUTS * p.batch, out += EACH_OUTPUTS * p.batch) {
    each_entries<4, EACH_OUTPUTS, CUT>(p, h, end, p.x + n, grad, j, last, out, part);
  }
  for (; o < p.outputs; ++o, grad += p.batch, out += p.batch) {
    each_entries<8, 1, CUT>(p, h, end, p.x + n, grad, j, last, out, part);
  }
}

// The entries [j, last) of a row.
template <class T>
void each_row(const Each<T>& p, int64_t row, int64_t j, int64_t last) {
  using V = Vec<T>;
  const T* const grad = p.grad + row * p.height * p.width * p.outputs * p.batch;
  const int64_t lines = std::max<int64_t>(1, EACH_BYTES / (p.width * EACH_OUTPUTS * ISA_BYTES));
  for (int64_t h = 0; h < p.height; h += lines) {
    const int64_t end = std::min(p.height, h + lines);
    int64_t n = 0;
    for (; n + V::LANES <= p.batch; n += V::LANES) each_examples<false>(p, h, end, n, grad, j, last, V::part(0));
    if (n < p.batch) each_examples<true>(p, h, end, n, grad, j, last, V::part(static_cast<int>(p.batch - n)));
  }
}
