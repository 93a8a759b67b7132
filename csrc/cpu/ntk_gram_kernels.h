// Gathered rows are packed into slabs, ROWS columns a term on the left and WIDE on the right, so that a cell of ROWS x WIDE
// sums stays in registers while terms pass. Signals b of several outputs are packed alike: their products, summed over
// outputs, multiply a neuron's sums cell by cell. `full` keeps outputs apart: cells are held for many pieces, and then each
// pair of examples gets [outputs, outputs] as one product over these. (No include of its own: see simd.h.)

constexpr int64_t HELD_PIECES = 64;

// row * factor [* scale] in slabs of WIDTH columns that lie `step` apart, 0 behind the last column.
template <int WIDTH, bool SCALED, class T>
INLINE void pack(const T* __restrict row, const T* __restrict scale, T factor, int64_t columns, int64_t step,
                 T* __restrict out) {
  for (; columns >= WIDTH; columns -= WIDTH, row += WIDTH, out += step) {
    for (int k = 0; k < WIDTH; ++k) out[k] = row[k] * factor * (SCALED ? scale[k] : T(1));
    if constexpr (SCALED) scale += WIDTH;
  }
  if (columns == 0) return;
  for (int k = 0; k < WIDTH; ++k) out[k] = k < columns ? row[k] * factor * (SCALED ? scale[k] : T(1)) : T(0);
}

template <class T>
class GramSum {
  using V = Vec<T>;
  static constexpr int LANES = V::LANES, ROWS = REGISTERS / 4, WIDE = 3 * LANES;

  // Packed terms of both sides: term t of slab s at (s capacity + t) of the slab's width.
  struct Terms {
    int64_t capacity, count = 0;
    Lines<T> left, right;

    Terms(int64_t capacity, int64_t rows, int64_t columns)
        : capacity(capacity), left(lines<T>(capacity * rows * ROWS)), right(lines<T>(capacity * columns * WIDE)) {}
    const T* row(int64_t slab, int64_t term) const { return left.get() + (slab * capacity + term) * ROWS; }
    const T* column(int64_t slab, int64_t term) const { return right.get() + (slab * capacity + term) * WIDE; }
    template <bool SCALED>
    void add(const GramTile& tile, T factor, const T* l, const T* r, const T* left_scale, const T* right_scale) {
      pack<ROWS, SCALED>(l + tile.row, left_scale + (SCALED ? tile.row : 0), factor, tile.row_end - tile.row,
                         capacity * ROWS, left.get() + count * ROWS);
      pack<WIDE, SCALED>(r + tile.column, right_scale + (SCALED ? tile.column : 0), T(1), tile.columns(tile.row_end),
                         capacity * WIDE, right.get() + count * WIDE);
      ++count;
    }
  };

 public:
  GramSum(const Gram<T>& p, const GramTile& tile, int64_t most_pieces)
      : p_(p),
        tile_(tile),
        rows_((tile.row_end - tile.row + ROWS - 1) / ROWS),
        columns_((tile.columns(tile.row_end) + WIDE - 1) / WIDE),
        slots_(p.full ? std::max(HELD_PIECES, most_pieces) : 1),
        padded_((p.outputs + ROWS - 1) / ROWS * ROWS),
        entries_(GramBlocks::TERMS, rows_, columns_),
        signals_(p.single() ? 0 : p.full ? slots_ * padded_ : most_pieces * p.outputs, rows_, columns_),
        sums_(lines<T>(rows_ * columns_ * slots_ * ROWS * WIDE)) {
    if (p.full) {
      for (int64_t n = tile.row; n < tile.row_end; ++n) {
        std::fill_n(pair(n, tile.column), tile.columns(n + 1) * p.outputs * p.outputs, T(0));
      }
      std::fill_n(signals_.left.get(), slots_ * padded_ * rows_ * ROWS, T(0));
    } else {
      std::fill_n(sums_.get(), rows_ * columns_ * ROWS * WIDE, T(0));
    }
  }

  void add(const Piece* begin, const Piece* end) {
    if (p_.full && held_ + (end - begin) > slots_) spread();
    entries_.count = signals_.count = 0;
    for (const Piece* piece = begin; piece < end; ++piece) {
      gather(*piece);
      if (p_.full) gather_apart(*piece, held_ + (piece - begin));
      else if (!p_.single()) gather_signals(*piece);
    }
    for (int64_t c = 0; c < columns_; ++c) {
      for (int64_t r = 0; r < rows_; ++r) {
        const int64_t columns = tile_.columns(std::min(tile_.row + (r + 1) * ROWS, tile_.row_end)) - c * WIDE;
        if (columns > 2 * LANES) cell<3>(begin, end, r, c);
        else if (columns > LANES) cell<2>(begin, end, r, c);
        else if (columns > 0) cell<1>(begin, end, r, c);
      }
    }
    if (p_.full) held_ += end - begin;
  }

  // To the result and its mirror image.
  void store() {
    if (p_.full) spread();
    for (int64_t n = tile_.row; n < tile_.row_end; ++n) {
      const int64_t columns = tile_.columns(n + 1), r = n - tile_.row;
      for (int64_t c = 0; c < columns && !p_.full; c += WIDE) {
        const T* const sums = cell_sums(r / ROWS, c / WIDE) + r % ROWS * WIDE;
        std::copy_n(sums, std::min<int64_t>(columns - c, WIDE), p_.out + n * p_.n2 + tile_.column + c);
      }
      for (int64_t m = tile_.column; p_.symmetric && m < tile_.column + columns; ++m) mirror(n, m);
    }
  }

 private:
  T* cell_sums(int64_t r, int64_t c) const { return sums_.get() + (r * columns_ + c) * slots_ * ROWS * WIDE; }
  // What of the result two examples have.
  T* pair(int64_t n, int64_t m) const { return p_.out + (n * p_.n2 + m) * (p_.full ? p_.outputs * p_.outputs : 1); }

  void mirror(int64_t n, int64_t m) const {
    if (!p_.full) {
      *pair(m, n) = *pair(n, m);
      return;
    }
    const T* const from = pair(n, m);
    T* const to = pair(m, n);
    for (int64_t o = 0; o < p_.outputs; ++o) {
      for (int64_t k = 0; k < (n == m ? o : p_.outputs); ++k) to[k * p_.outputs + o] = from[o * p_.outputs + k];
    }
  }

  void gather(const Piece& piece) {
    for (int32_t j = piece.begin; j < piece.end; ++j) {
      const T *const left = p_.a + p_.w.indices[j] * p_.n, *const right = p_.a2 + p_.w.indices[j] * p_.n2;
      const T square = p_.squares == nullptr ? T(1) : p_.squares[j];
      const T *const b = p_.b + piece.neuron * p_.n, *const b2 = p_.b2 + piece.neuron * p_.n2;
      if (p_.single()) entries_.template add<true>(tile_, square, left, right, b, b2);
      else entries_.template add<false>(tile_, square, left, right, nullptr, nullptr);
    }
  }
  void gather_signals(const Piece& piece) {
    for (int64_t s = piece.neuron * p_.outputs; s < (piece.neuron + 1) * p_.outputs; ++s) {
      signals_.template add<false>(tile_, T(1), p_.b + s * p_.n, p_.b2 + s * p_.n2, nullptr, nullptr);
    }
  }
  // Example by example: [piece, output], a row of outputs filled up to ROWS.
  void gather_apart(const Piece& piece, int64_t at) {
    for (int64_t o = 0; o < p_.outputs; ++o) {
      const int64_t signal = piece.neuron * p_.outputs + o;
      const T *const b = p_.b + signal * p_.n, *const b2 = p_.b2 + signal * p_.n2;
      T *const left = signals_.left.get() + at * padded_ + o, *const right = signals_.right.get() + at * padded_ + o;
      for (int64_t n = tile_.row; n < tile_.row_end; ++n) left[(n - tile_.row) * slots_ * padded_] = b[n];
      for (int64_t m = 0; m < tile_.columns(tile_.row_end); ++m) right[m * slots_ * padded_] = b2[tile_.column + m];
    }
  }

  template <int R>
  static INLINE void products(const T* left, const T* right, int64_t terms, V (*sum)[R]) {
    UNROLL for (int r = 0; r < ROWS; ++r) {
      UNROLL for (int v = 0; v < R; ++v) sum[r][v] = V::zero();
    }
    for (; terms > 0; --terms, left += ROWS, right += WIDE) {
      V x[R];
      UNROLL for (int v = 0; v < R; ++v) x[v] = V::load(right + v * LANES);
      UNROLL for (int r = 0; r < ROWS; ++r) {
        const V factor = V::all(left[r]);
        UNROLL for (int v = 0; v < R; ++v) sum[r][v].add_product(factor, x[v]);
      }
    }
  }

  // Slab r of rows by the first R vectors of slab c of columns.
  template <int R>
  void cell(const Piece* begin, const Piece* end, int64_t r, int64_t c) {
    T* out = cell_sums(r, c) + held_ * ROWS * WIDE;
    V sum[ROWS][R];
    if (p_.single()) {
      products<R>(entries_.row(r, 0), entries_.column(c, 0), entries_.count, sum);
      UNROLL for (int i = 0; i < ROWS * R; ++i) {
        T* const at = out + i / R * WIDE + i % R * LANES;
        (V::load(at) + sum[i / R][i % R]).store(at);
      }
      return;
    }
    int64_t term = 0, signal = 0;
    for (const Piece* piece = begin; piece < end; term += piece->end - piece->begin, ++piece) {
      if (p_.full) {
        products<R>(entries_.row(r, term), entries_.column(c, term), piece->end - piece->begin, sum);
        UNROLL for (int i = 0; i < ROWS * R; ++i) sum[i / R][i % R].store(out + i / R * WIDE + i % R * LANES);
        out += ROWS * WIDE;
        continue;
      }
      alignas(64) T weights[ROWS * R * LANES];
      products<R>(signals_.row(r, signal), signals_.column(c, signal), p_.outputs, sum);
      UNROLL for (int i = 0; i < ROWS * R; ++i) sum[i / R][i % R].store(weights + i * LANES);
      products<R>(entries_.row(r, term), entries_.column(c, term), piece->end - piece->begin, sum);
      UNROLL for (int i = 0; i < ROWS * R; ++i) {
        T* const at = out + i / R * WIDE + i % R * LANES;
        V total = V::load(at);
        total.add_product(V::load(weights + i * LANES), sum[i / R][i % R]);
        total.store(at);
      }
      signal += p_.outputs;
    }
  }

  // out[n, m, o, k] += sum over the pieces held of sums[n, m] b[n, o] b2[m, k].
  void spread() {
    for (int64_t n = 0; n < tile_.row_end - tile_.row; ++n) {
      for (int64_t m = 0; m < tile_.columns(tile_.row + n + 1); ++m) {
        const T* const sums = cell_sums(n / ROWS, m / WIDE) + n % ROWS * WIDE + m % WIDE;
        const T* const left = signals_.left.get() + n * slots_ * padded_;
        const T* const right = signals_.right.get() + m * slots_ * padded_;
        T* const to = pair(tile_.row + n, tile_.column + m);
        for (int64_t o = 0; o < p_.outputs; o += ROWS) {
          for (int64_t k = 0; k < p_.outputs; k += LANES) outputs(sums, left + o, right + k, to + o * p_.outputs + k, o, k);
        }
      }
    }
    held_ = 0;
  }

  // ROWS outputs from o on by LANES from k on, of a pair of examples.
  void outputs(const T* sums, const T* left, const T* right, T* to, int64_t o, int64_t k) const {
    const int64_t rows = std::min<int64_t>(p_.outputs - o, ROWS);
    const auto part = V::part(static_cast<int>(std::min<int64_t>(p_.outputs - k, LANES)));
    V total[ROWS];
    UNROLL for (int i = 0; i < ROWS; ++i) total[i] = V::zero();
    for (int64_t h = 0; h < held_; ++h, sums += ROWS * WIDE, left += padded_, right += padded_) {
      const V x = {V::load(right, part).v * V::all(*sums).v};
      UNROLL for (int i = 0; i < ROWS; ++i) total[i].add_product(V::all(left[i]), x);
    }
    for (int64_t i = 0; i < rows; ++i, to += p_.outputs) (V::load(to, part) + total[i]).store(to, part);
  }

  const Gram<T> p_;
  const GramTile tile_;
  const int64_t rows_, columns_, slots_, padded_;  // slabs, slabs; of sums that a cell has; outputs, filled up to ROWS
  int64_t held_ = 0;                               // slots in use, of `full`
  Terms entries_, signals_;
  Lines<T> sums_;  // of the tile, cell after cell
};

template <class T>
void gram_tile(const Gram<T>& p, const GramTile& tile, const GramBlocks& blocks) {
  GramSum<T> sum(p, tile, blocks.most);
  for (int64_t k = 0; k < blocks.count(); ++k) {
    sum.add(blocks.pieces.data() + blocks.first[k], blocks.pieces.data() + blocks.first[k + 1]);
  }
  sum.store();
}
