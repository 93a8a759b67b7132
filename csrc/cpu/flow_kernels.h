// Weights are read once where they lie, a few rows at a time and of these a chunk, which is made |w|^power under the mask
// in the first cache. Rows beyond the last are zero.

// v[r][i] = |w|^power where kept, else 0.
template <class T>
void flow_weights(const Flow<T>& p, int64_t row, int64_t k, int64_t n, T (*v)[FLOW_CHUNK]) {
  for (int r = 0; r < FLOW_ROWS; ++r) {
    T* const out = v[r];
    if (row + r >= p.outputs) {
      std::memset(out, 0, n * sizeof(T));
      continue;
    }
    const int64_t at = (row + r) * p.inputs + k;
    const T* const w = p.w + at;
    const uint8_t* const mask = p.mask == nullptr ? nullptr : p.mask + at;
    if (p.square) {
      for (int64_t i = 0; i < n; ++i) out[i] = w[i] * w[i];
    } else {
      for (int64_t i = 0; i < n; ++i) out[i] = w[i] < 0 ? -w[i] : w[i];
    }
    if (mask == nullptr) continue;
    for (int64_t i = 0; i < n; ++i) out[i] = mask[i] != 0 ? out[i] : T{0};
  }
}

// total[i] = the sum of the lanes of x[i], i < N.
template <int N, class C>
INLINE void add_lanes(const Vec<C>* x, C* total) {
  using V = Vec<C>;
  for (int g = 0; g < N; g += V::LANES) {
    V held[V::LANES];
    UNROLL for (int i = 0; i < V::LANES; ++i) held[i] = g + i < N ? x[g + i] : V::zero();
    V::sums(held).store(total + g);
  }
}

// sum[p][r] += v[r] . x[p] for P places from `place` on.
template <int P, class T>
void flow_dots(const Flow<T>& p, const T (*v)[FLOW_CHUNK], int64_t place, int64_t k, int64_t n, T (*sum)[FLOW_ROWS]) {
  using V = Vec<T>;
  V dot[P][FLOW_ROWS];
  UNROLL for (int q = 0; q < P; ++q) {
    UNROLL for (int r = 0; r < FLOW_ROWS; ++r) dot[q][r] = V::zero();
  }
  const T* const x = p.x + place * p.inputs + k;
  for (int64_t i = 0; i < n; i += V::LANES) {
    const auto part = V::part(static_cast<int>(std::min<int64_t>(V::LANES, n - i)));
    V weight[FLOW_ROWS];
    UNROLL for (int r = 0; r < FLOW_ROWS; ++r) weight[r] = V::load(v[r] + i, part);
    UNROLL for (int q = 0; q < P; ++q) {
      const V at = V::load(x + q * p.inputs + i, part);
      UNROLL for (int r = 0; r < FLOW_ROWS; ++r) dot[q][r].add_product(weight[r], at);
    }
  }
  T lanes[P * FLOW_ROWS < V::LANES ? V::LANES : P * FLOW_ROWS];
  add_lanes<P * FLOW_ROWS>(&dot[0][0], lanes);
  for (int q = 0; q < P; ++q) {
    for (int r = 0; r < FLOW_ROWS; ++r) sum[place + q][r] += lanes[q * FLOW_ROWS + r];
  }
}

// y of FLOW_ROWS rows; sum: [places][FLOW_ROWS], scratch.
template <class T>
void flow_rows(const Flow<T>& p, int64_t row, T (*sum)[FLOW_ROWS]) {
  alignas(64) T v[FLOW_ROWS][FLOW_CHUNK];
  std::memset(sum, 0, p.places * FLOW_ROWS * sizeof(T));
  for (int64_t k = 0; k < p.inputs; k += FLOW_CHUNK) {
    const int64_t n = std::min(FLOW_CHUNK, p.inputs - k);
    flow_weights(p, row, k, n, v);
    int64_t q = 0;
    for (; q + 4 <= p.places; q += 4) flow_dots<4>(p, v, q, k, n, sum);
    for (; q < p.places; ++q) flow_dots<1>(p, v, q, k, n, sum);
  }
  for (int r = 0; r < FLOW_ROWS && row + r < p.outputs; ++r) {
    for (int64_t q = 0; q < p.places; ++q) p.y[(row + r) * p.places + q] = sum[q][r];
  }
}

// One register of inputs of FLOW_ROWS rows: dx[q] += v g, and v (g . x) to the scores.
template <class T>
INLINE void flow_back(const T* x, T* dx, const T (*grad)[FLOW_ROWS], int64_t places, int64_t held, Vec<T>* weight,
                      Vec<T>* score, typename Vec<T>::Part part) {
  using V = Vec<T>;
  V total[FLOW_ROWS];
  UNROLL for (int r = 0; r < FLOW_ROWS; ++r) total[r] = V::zero();
  for (int64_t q = 0; q < places; ++q) {
    const V at = V::load(x + q * held, part);
    V back = V::load(dx + q * held);
    UNROLL for (int r = 0; r < FLOW_ROWS; ++r) {
      const V g = V::all(grad[q][r]);
      total[r].add_product(g, at);
      back.add_product(g, weight[r]);
    }
    back.store(dx + q * held);
  }
  UNROLL for (int r = 0; r < FLOW_ROWS; ++r) score[r] = {weight[r].v * total[r].v};
}

// dx and scores of the inputs [k, k + n), n <= FLOW_CHUNK, and the least and largest score. Scratch: x and dx
// [places, held], copies: rows of a power of two apart would fall on few sets of the cache; grad [places][FLOW_ROWS].
template <class T>
void flow_columns(const Flow<T>& p, int64_t k, int64_t n, int64_t held, T* x, T* dx, T (*grad)[FLOW_ROWS], T* bounds) {
  using V = Vec<T>;
  alignas(64) T v[FLOW_ROWS][FLOW_CHUNK];
  std::memset(dx, 0, p.places * held * sizeof(T));
  for (int64_t q = 0; q < p.places; ++q) std::memcpy(x + q * held, p.x + q * p.inputs + k, n * sizeof(T));
  typename V::V low = {}, high = {};
  for (int64_t row = 0; row < p.outputs; row += FLOW_ROWS) {
    const int rows = static_cast<int>(std::min<int64_t>(FLOW_ROWS, p.outputs - row));
    flow_weights(p, row, k, n, v);
    for (int64_t q = 0; q < p.places; ++q) {
      for (int r = 0; r < FLOW_ROWS; ++r) grad[q][r] = r < rows ? p.grad[(row + r) * p.places + q] : T{0};
    }
    for (int64_t i = 0; i < n; i += V::LANES) {
      const auto part = V::part(static_cast<int>(std::min<int64_t>(V::LANES, n - i)));
      V weight[FLOW_ROWS], score[FLOW_ROWS];
      UNROLL for (int r = 0; r < FLOW_ROWS; ++r) weight[r] = V::load(v[r] + i, part);
      flow_back<T>(x + i, dx + i, grad, p.places, held, weight, score, part);
      UNROLL for (int r = 0; r < FLOW_ROWS; ++r) {
        T* const out = p.scores + (row + r) * p.inputs + k + i;
        if (r >= rows) continue;
        if (p.stream && part.n == V::LANES) score[r].stream(out);
        else score[r].store(out, part);
        low = score[r].v < low ? score[r].v : low;
        high = score[r].v > high || score[r].v != score[r].v ? score[r].v : high;  // a NaN stays seen
      }
    }
  }
  V::fence();
  for (int l = 0; l < V::LANES; ++l) {
    bounds[0] = low[l] < bounds[0] ? low[l] : bounds[0];
    bounds[1] = high[l] > bounds[1] || high[l] != high[l] ? high[l] : bounds[1];
  }
  for (int64_t q = 0; q < p.places; ++q) std::memcpy(p.dx + q * p.inputs + k, dx + q * held, n * sizeof(T));
}
