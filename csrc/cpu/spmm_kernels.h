// A row of y: a few registers of batch columns, to which each kept weight adds its multiple of a row of x. Loads of x are
// the limit (one a product, most of them from the second cache), so nothing else is loaded that can be helped: many
// columns share each weight. Where there are few columns, several weights in turn have sums of their own, as a product
// takes four cycles.

template <int R>
constexpr int CHAINS = R == 1 ? 8 : R == 2 ? 4 : R <= 4 ? 2 : 1;

// A row of x as a pointer of its own: with an index in the address, a load and its product would issue apart.
template <class T>
INLINE const T* row_of(const T* base, int64_t offset) {
  const T* row = base + offset;
  asm("" : "+r"(row));
  return row;
}

// The weights of the rows whose input is below `bound`, from the cursors on. CUT: the last vector has `tail` columns.
template <class T, int R, bool CUT, bool ORDERED>
void spmm_panel(const Spmm<T>& p, const SpmmBlock<T>& block, int32_t bound, bool first, int tail) {
  using V = Vec<Sum<T>>;
  constexpr int U = CHAINS<R>;
  const auto part = V::part(tail);
  // Copies: after a store the compiler would load fields again, at every weight.
  const Pattern w = p.w;
  const int32_t *const columns = w.indices, *const order = w.order;
  const T *const values = p.values, *const base = block.x;
  const int64_t pitch = block.pitch;
  for (int64_t i = block.row; i < block.end; ++i) {
    T* const y = p.y + i * p.batch + block.column;
    int32_t j = first ? w.offsets[i] : block.cursors[i - block.row];
    const int32_t end = w.offsets[i + 1];
    V sum[U][R];
    UNROLL for (int u = 0; u < U; ++u) {
      UNROLL for (int r = 0; r < R; ++r) sum[u][r] = V::zero();
    }
    if (!first) {
      UNROLL for (int r = 0; r < R; ++r) sum[0][r] = load<R, CUT, V>(y, r, part);
    } else if (p.bias != nullptr) {
      UNROLL for (int r = 0; r < R; ++r) sum[0][r] = V::all(widen(p.bias[i]));
    }
    for (; j + U <= end && columns[j + U - 1] < bound; j += U) {
      UNROLL for (int u = 0; u < U; ++u) {
        const T* const x = row_of(base, columns[j + u] * pitch);
        const V weight = V::all(widen(values[ORDERED ? order[j + u] : j + u]));
        UNROLL for (int r = 0; r < R; ++r) sum[u][r].add_product(weight, load<R, CUT, V>(x, r, part));
      }
    }
    for (; U > 1 && j < end && columns[j] < bound; ++j) {
      const T* const x = row_of(base, columns[j] * pitch);
      const V weight = V::all(widen(values[ORDERED ? order[j] : j]));
      UNROLL for (int r = 0; r < R; ++r) sum[0][r].add_product(weight, load<R, CUT, V>(x, r, part));
    }
    UNROLL for (int r = 0; r < R; ++r) {
      UNROLL for (int u = 1; u < U; ++u) sum[0][r] = sum[0][r] + sum[u][r];
      if (CUT && r == R - 1) sum[0][r].store(y + r * V::LANES, part);
      else sum[0][r].store(y + r * V::LANES);
    }
    if (block.cursors != nullptr) block.cursors[i - block.row] = j;
  }
}

// Columns of a tile.
template <class T>
int64_t spmm_width(const Spmm<T>& p) {
  int64_t width = 8 * Vec<Sum<T>>::LANES;
  const int64_t bytes = p.inputs * static_cast<int64_t>(sizeof(T));
  // Panels do it otherwise.
  while (!std::is_same_v<T, Sum<T>> && width > 2 * Vec<Sum<T>>::LANES && bytes * width > SECOND_CACHE) width /= 2;
  return width;
}

// Inputs in a panel: so few that their rows of x come nearer the first cache, yet enough that rows of y, which each panel
// loads and stores again, have some weights there: more where rows of y lie far apart, which the caches hold less well.
// bfloat16 would round each time. By the problem alone, not by what a thread has of it: panels are an order of sums.
template <class T>
int64_t panel_inputs(const Spmm<T>& p, int64_t row_bytes) {
  if (!std::is_same_v<T, Sum<T>>) return p.inputs;
  const int64_t cells = p.w.rows * p.inputs, weights = p.batch > spmm_width(p) ? 60 : 20;
  const int64_t near = 65536 / row_bytes, far = SECOND_CACHE / row_bytes;
  const int64_t wanted = std::min(std::max(near, weights * cells / std::max<int64_t>(1, p.w.entries)), far);
  if (p.inputs <= wanted + wanted / 2) return p.inputs;
  const int64_t panels = (p.inputs + wanted - 1) / wanted;
  return (p.inputs + panels - 1) / panels;
}

template <class T, int R, bool CUT>
void spmm_columns(const Spmm<T>& p, SpmmBlock<T> block, int tail) {
  const int64_t panel = panel_inputs(p, R * Vec<Sum<T>>::LANES * static_cast<int64_t>(sizeof(T)));
  if (panel >= p.inputs) block.cursors = nullptr;
  int64_t k = 0;
  do {
    const bool last = k + panel >= p.inputs;
    const int32_t bound = last ? INT32_MAX : static_cast<int32_t>(k + panel);
    if (p.w.order == nullptr) spmm_panel<T, R, CUT, false>(p, block, bound, k == 0, tail);
    else spmm_panel<T, R, CUT, true>(p, block, bound, k == 0, tail);
    k += panel;
  } while (k < p.inputs);
}

// As many vectors as fit R, then on with what is left: 8, 6, 4, 3, 2, 1.
template <class T, int R>
void spmm_block(const Spmm<T>& p, SpmmBlock<T> block, int64_t columns) {
  constexpr int LANES = Vec<Sum<T>>::LANES, NEXT = R > 4 ? R - 2 : R - 1;
  for (; columns > (R - 1) * LANES && columns > 0; columns -= R * LANES, block.column += R * LANES, block.x += R * LANES) {
    if (columns >= R * LANES) spmm_columns<T, R, false>(p, block, LANES);
    else spmm_columns<T, R, true>(p, block, static_cast<int>(columns - (R - 1) * LANES));
  }
  if constexpr (R > 1) {
    if (columns > 0) spmm_block<T, NEXT>(p, block, columns);
  }
}

template <class T>
INLINE Vec<Sum<T>> weights(const Spmm<T>& p, int32_t j) {
  using V = Vec<Sum<T>>;
  return p.w.order == nullptr ? V::load(p.values + j) : V::gather(p.values, p.w.order + j);
}

// One column: lanes are weights.
template <class T>
void spmm_column(const Spmm<T>& p, const SpmmBlock<T>& block) {
  using V = Vec<Sum<T>>;
  constexpr int LANES = V::LANES, U = 4;
  for (int64_t i = block.row; i < block.end; ++i) {
    int32_t j = p.w.offsets[i];
    const int32_t end = p.w.offsets[i + 1];
    V sum[U];
    UNROLL for (int u = 0; u < U; ++u) sum[u] = V::zero();
    for (; j + U * LANES <= end; j += U * LANES) {
      UNROLL for (int u = 0; u < U; ++u) {
        sum[u].add_product(weights(p, j + u * LANES), V::gather(block.x, p.w.indices + j + u * LANES));
      }
    }
    for (; j + LANES <= end; j += LANES) sum[0].add_product(weights(p, j), V::gather(block.x, p.w.indices + j));
    Sum<T> lanes[LANES], total = 0;
    ((sum[0] + sum[1]) + (sum[2] + sum[3])).store(lanes);
    for (int l = 0; l < LANES; ++l) total += lanes[l];
    for (; j < end; ++j) total += widen(p.values[p.w.place(j)]) * widen(block.x[p.w.indices[j]]);
    p.y[i] = narrow<T>(p.bias == nullptr ? total : total + widen(p.bias[i]));
  }
}

template <class T>
void spmm_tile(const Spmm<T>& p, const SpmmBlock<T>& block, int64_t columns) {
  if (p.batch == 1) spmm_column<T>(p, block);
  else spmm_block<T, 8>(p, block, columns);
}
