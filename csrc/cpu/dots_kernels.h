// A row of `left` stays in registers, and its dot product with each row of `right` that the pattern names is a register of
// partial sums. Two of these are merged as soon as there are two, then two of the merged and so on, so that few wait and none
// in memory. The backward pass loads rows of `right` once for the dot product and for the sum. CUT: the last of R vectors has
// `tail` columns.

// Lanes [0, n) of `sum` are of the entries from g on, over this tile.
template <class T, class V>
INLINE void put(const Dots<T>& p, const DotsBlock<T>& block, int32_t g, int n, V sum, bool first, bool last) {
  const auto part = V::part(n);
  Sum<T>* const partial = block.partial + (g - block.base);
  if (!first) sum = sum + V::load(partial, part);
  if (!last) {
    sum.store(partial, part);
  } else if (p.w.order == nullptr) {
    sum.store(p.dots + g, part);
  } else {
    T lanes[V::LANES];
    sum.store(lanes);
    for (int k = 0; k < n; ++k) p.dots[p.w.order[g + k]] = lanes[k];
  }
}

// Entry j: a register whose lanes sum up to its dot product.
template <int R, bool CUT, bool SUMS, class T, class V>
INLINE V entry(const Dots<T>& p, const DotsBlock<T>& block, int32_t j, const V* left, V* sum, typename V::Part part) {
  const T* const row = block.right + p.w.indices[j] * block.pitch;
  V weight = V::zero(), dot = V::zero();
  if constexpr (SUMS) {
    const int32_t at = p.w.order[j];
    __builtin_prefetch(p.dots + at, 1);  // other threads write to this line, too: it takes long to come
    weight = V::all(widen(p.values[at]));
  }
  UNROLL for (int r = 0; r < R; ++r) {
    const V right = load<R, CUT, V>(row, r, part);
    dot.add_product(left[r], right);
    if constexpr (SUMS) sum[r].add_product(weight, right);
  }
  return dot;
}

// N entries from j on, merged; U neighbours have chains of sums of their own.
template <int R, bool CUT, bool SUMS, int N, int U, class T, class V>
INLINE V entries(const Dots<T>& p, const DotsBlock<T>& block, int32_t j, const V* left, V (*sum)[R], typename V::Part part) {
  if constexpr (N == 1) {
    return entry<R, CUT, SUMS>(p, block, j, left, sum[0], part);
  } else {
    constexpr int HALF = N / 2;
    const V a = entries<R, CUT, SUMS, HALF, U>(p, block, j, left, sum, part);
    const V b = entries<R, CUT, SUMS, HALF, U>(p, block, j + HALF, left, sum + (HALF < U ? HALF : 0), part);
    return V::template merged<HALF>(a, b);
  }
}

// n < 2 N entries from j on, merged as if there were 2 N.
template <int R, bool CUT, bool SUMS, int N, int U, class T, class V>
INLINE V few(const Dots<T>& p, const DotsBlock<T>& block, int32_t j, int n, const V* left, V (*sum)[R], typename V::Part part) {
  V a = V::zero(), b = V::zero();
  const bool has = (n & N) != 0;
  if (has) {
    a = entries<R, CUT, SUMS, N, U>(p, block, j, left, sum, part);
    j += N;
  }
  if constexpr (N > 1) b = few<R, CUT, SUMS, N / 2, U>(p, block, j, n, left, sum, part);
  return has ? V::template merged<N>(a, b) : V::template merged<N>(b, a);
}

template <class T, int R, bool CUT, bool SUMS>
void dots_rows(const Dots<T>& given, const DotsBlock<T>& place, bool first, bool last, int tail) {
  const Dots<T> p = given;  // copies: after a store the compiler would load fields again, at every entry
  const DotsBlock<T> block = place;
  using V = Vec<Sum<T>>;
  constexpr int U = R == 1 ? 4 : R == 2 ? 2 : 1;
  const auto part = V::part(tail);
  for (int64_t i = block.row; i < block.end; ++i) {
    const int32_t end = p.w.offsets[i + 1];
    V left[R], sum[U][R];
    UNROLL for (int r = 0; r < R; ++r) left[r] = load<R, CUT, V>(p.left + i * p.batch + block.column, r, part);
    UNROLL for (int u = 0; u < U; ++u) {
      UNROLL for (int r = 0; r < R; ++r) sum[u][r] = V::zero();
    }
    int32_t j = p.w.offsets[i];
    for (; j + V::LANES <= end; j += V::LANES) {
      put(p, block, j, V::LANES, entries<R, CUT, SUMS, V::LANES, U>(p, block, j, left, sum, part), first, last);
    }
    if (const int n = end - j; n > 0) {
      put(p, block, j, n, few<R, CUT, SUMS, V::LANES / 2, U>(p, block, j, n, left, sum, part), first, last);
    }
    if constexpr (SUMS) {
      T* const y = p.sums + i * p.batch + block.column;
      UNROLL for (int r = 0; r < R; ++r) {
        UNROLL for (int u = 1; u < U; ++u) sum[0][r] = sum[0][r] + sum[u][r];
        if (CUT && r == R - 1) sum[0][r].store(y + r * V::LANES, part);
        else sum[0][r].store(y + r * V::LANES);
      }
    }
  }
}

// As many vectors as fit R, then on with what is left: 8, 4, 2, 1.
template <class T, int R, bool SUMS>
void dots_block(const Dots<T>& p, DotsBlock<T> block, int64_t columns) {
  constexpr int LANES = Vec<Sum<T>>::LANES;
  while (columns > (R - 1) * LANES && columns > 0) {
    const bool last = block.last && columns <= R * LANES;
    if (columns >= R * LANES) dots_rows<T, R, false, SUMS>(p, block, block.first, last, LANES);
    else dots_rows<T, R, true, SUMS>(p, block, block.first, last, static_cast<int>(columns - (R - 1) * LANES));
    columns -= R * LANES;
    block.column += R * LANES;
    block.right += R * LANES;
    block.first = false;
  }
  if constexpr (R > 1) {
    if (columns > 0) dots_block<T, R / 2, SUMS>(p, block, columns);
  }
}

// Registers of columns that a row of `left` and its sums may fill.
constexpr int DOTS_VECTORS = REGISTERS / 4;

template <class T>
int64_t dots_width(const Dots<T>& p) {
  int64_t width = DOTS_VECTORS * Vec<Sum<T>>::LANES;
  const int64_t bytes = p.others * static_cast<int64_t>(sizeof(T));
  while (width > 2 * Vec<Sum<T>>::LANES && bytes * width > SECOND_CACHE) width /= 2;
  return width;
}

template <class T>
void dots_tile(const Dots<T>& p, const DotsBlock<T>& block, int64_t columns) {
  if (p.sums != nullptr) dots_block<T, DOTS_VECTORS, true>(p, block, columns);
  else dots_block<T, DOTS_VECTORS, false>(p, block, columns);
}
