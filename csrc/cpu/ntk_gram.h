// Arguments of the tangent kernel of a layer's kept weights, and how its sums are cut.
#pragma once

#include <vector>

#include "lines.h"
#include "products.h"

namespace sparseprune {

// out[n, n'] = sum_i (sum_j q_j a[c_j, n] a2[c_j, n']) (sum_o b[i, o, n] b2[i, o, n']).
template <class T>
struct Gram {
  Pattern w;
  const T* squares;          // or null
  const T *a, *b, *a2, *b2;  // [inputs, n], [rows, outputs, n]; [inputs, n2], [rows, outputs, n2]
  T* out;                    // [n, n2]; of `full` [n, n2, outputs, outputs]
  int64_t n, n2, outputs;
  bool symmetric, full;  // symmetric: a2 = a and b2 = b

  // A single output's signals go into the gathered rows, and all neurons make one product.
  bool single() const { return outputs == 1; }
};

// Entries of a neuron that are summed before its outputs' signals multiply the sum.
struct Piece {
  int64_t neuron;
  int32_t begin, end;
};

// Block k: the pieces [first[k], first[k + 1]), whose packed rows stay in the first cache while cells of the result pass.
struct GramBlocks {
  static constexpr int64_t TERMS = 128;

  std::vector<Piece> pieces;
  std::vector<int64_t> first{0};
  int64_t most = 0;  // pieces of a block

  GramBlocks(const Pattern& w, int64_t outputs);
  int64_t count() const { return static_cast<int64_t>(first.size()) - 1; }
};

// Rows and columns of the result that one thread sums; `lower`: each row up to its own column only.
struct GramTile {
  int64_t row, row_end, column, column_end;
  bool lower;

  // Columns of rows that end before `end`.
  int64_t columns(int64_t end) const { return (lower ? std::min(column_end, end) : column_end) - column; }
};

}  // namespace sparseprune
