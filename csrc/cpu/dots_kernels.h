// A row of `left` stays in registers, and its dot product with each row of `right` that the pattern names is a register of
// partial sums; these are summed as many at a time as a register has lanes. The backward pass loads rows of `right` once
// for the dot product and for the sum. CUT: the last of R vectors has `tail` columns.

constexpr int HELD = 16;  // registers of partial sums between summations: a multiple of any LANES

// partial[0 ... n) = or += the sums of lanes of held[0 ... n).
template <class C>
void add_up(const Vec<C>* held, int n, bool first, C* partial) {
  using V = Vec<C>;
  for (int g = 0; g < n; g += V::LANES) {
    V sum = V::sums(held + g);
    const int left = n - g;
    if (left >= V::LANES) {
      if (!first) sum = sum + V::load(partial + g);
      sum.store(partial + g);
    } else {
      const auto part = V::part(left);
      if (!first) sum = sum + V::load(partial + g, part);
      sum.store(partial + g, part);
    }
  }
}

// U entries from j on, each sum with a chain of its own.
template <int R, bool CUT, bool SUMS, int U, class T, class V>
INLINE void entries(const Dots<T>& p, const DotsBlock<T>& block, int32_t j, const V* left, V (*sum)[R], V* held,
                    typename V::Part part) {
  UNROLL for (int u = 0; u < U; ++u) {
    const T* const row = block.right + p.w.indices[j + u] * block.pitch;
    V weight = V::zero(), dot[2] = {V::zero(), V::zero()};
    if constexpr (SUMS) weight = V::all(widen(p.values[p.w.place(j + u)]));
    UNROLL for (int r = 0; r < R; ++r) {
      const V right = load<R, CUT, V>(row, r, part);
      dot[r % 2].add_product(left[r], right);
      if constexpr (SUMS) sum[u][r].add_product(weight, right);
    }
    held[u] = R > 1 ? dot[0] + dot[1] : dot[0];
  }
}

template <class T, int R, bool CUT, bool SUMS>
void dots_rows(const Dots<T>& given, const DotsBlock<T>& place, bool first, bool last, int tail) {
  const Dots<T> p = given;  // copies: after a store the compiler would load fields again, at every entry
  const DotsBlock<T> block = place;
  using V = Vec<Sum<T>>;
  constexpr int U = R == 1 ? 4 : R == 2 ? 2 : 1;
  const auto part = V::part(tail);
  V held[HELD];
  UNROLL for (int h = 0; h < HELD; ++h) held[h] = V::zero();
  for (int64_t i = block.row; i < block.end; ++i) {
    const int32_t begin = p.w.offsets[i], end = p.w.offsets[i + 1];
    V left[R], sum[U][R];
    UNROLL for (int r = 0; r < R; ++r) left[r] = load<R, CUT, V>(p.left + i * p.batch + block.column, r, part);
    UNROLL for (int u = 0; u < U; ++u) {
      UNROLL for (int r = 0; r < R; ++r) sum[u][r] = V::zero();
    }
    for (int32_t g = begin; g < end; g += HELD) {
      const int n = std::min(HELD, end - g);
      int h = 0;
      for (; h + U <= n; h += U) entries<R, CUT, SUMS, U>(p, block, g + h, left, sum, held + h, part);
      for (; U > 1 && h < n; ++h) entries<R, CUT, SUMS, 1>(p, block, g + h, left, sum, held + h, part);
      Sum<T>* const partial = block.partial + (g - block.base);
      add_up(held, n, first, partial);
      for (int32_t k = 0; last && k < n; ++k) p.dots[p.w.place(g + k)] = narrow<T>(partial[k]);
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
