// Squares of as many rows as a register has lanes; what does not fill a square goes number by number.

template <class C>
void transpose_square(const C* x, int64_t columns, C* y, int64_t rows) {
  using V = Vec<C>;
  V square[V::LANES];
  UNROLL for (int i = 0; i < V::LANES; ++i) square[i] = V::load(x + i * columns);
  V::transpose(square);
  UNROLL for (int i = 0; i < V::LANES; ++i) square[i].store(y + i * rows);
}

// Rows [begin, end) of y [columns, rows]; `begin` is a multiple of 32, and so is `end` but for the last.
template <class C>
void transpose_rows(const C* x, int64_t rows, int64_t columns, C* y, int64_t begin, int64_t end) {
  constexpr int64_t LANES = Vec<C>::LANES;
  int64_t c = begin;
  for (; c + LANES <= end; c += LANES) {
    int64_t r = 0;
    for (; r + LANES <= rows; r += LANES) transpose_square(x + r * columns + c, columns, y + c * rows + r, rows);
    for (; r < rows; ++r) {
      for (int64_t i = c; i < c + LANES; ++i) y[i * rows + r] = x[r * columns + i];
    }
  }
  for (; c < end; ++c) {
    for (int64_t r = 0; r < rows; ++r) y[c * rows + r] = x[r * columns + c];
  }
}
