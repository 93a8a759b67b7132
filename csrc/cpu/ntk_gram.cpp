// The tangent kernel of a layer's kept weights: tiles of the result, each over all neurons in the same order.
#include "cpu/ntk_gram.h"

#include <cmath>

#define KERNELS "cpu/ntk_gram_kernels.h"
#include "each_isa.h"

namespace sparseprune {

// Whole neurons while they fit, larger ones in equal pieces: by the pattern alone, as blocks are an order of sums.
GramBlocks::GramBlocks(const Pattern& w, int64_t outputs) {
  const int64_t most_signals = std::max(TERMS, outputs);
  for (int64_t i = 0, terms = 0; i < w.rows; ++i) {
    const int64_t begin = w.offsets[i], entries = w.offsets[i + 1] - begin, parts = (entries + TERMS - 1) / TERMS;
    for (int64_t p = 0; p < parts; ++p) {
      const Piece piece{i, static_cast<int32_t>(begin + entries * p / parts),
                        static_cast<int32_t>(begin + entries * (p + 1) / parts)};
      terms += piece.end - piece.begin;
      const auto count = static_cast<int64_t>(pieces.size()) - first.back();
      if (terms > TERMS || (count + 1) * outputs > most_signals) {
        first.push_back(static_cast<int64_t>(pieces.size()));
        terms = piece.end - piece.begin;
      }
      pieces.push_back(piece);
      most = std::max(most, static_cast<int64_t>(pieces.size()) - first.back());
    }
  }
  if (!pieces.empty()) first.push_back(static_cast<int64_t>(pieces.size()));
}

namespace {

constexpr int64_t STEP = 48, ROW_STEP = 8;  // multiples of any set's slabs

// Rows or columns of a tile of at most so many: its sums stay in the second cache.
int64_t band(int64_t n, int64_t most) {
  const int64_t bands = (n + most - 1) / most;
  return bands == 0 ? STEP : ((n + bands - 1) / bands + STEP - 1) / STEP * STEP;
}

template <class T>
std::vector<GramTile> tiles(const Gram<T>& p) {
  const int64_t most = p.full ? STEP : 8 * STEP, height = band(p.n, most), width = band(p.n2, most);
  std::vector<GramTile> result;
  for (int64_t n = 0; n < p.n; n += height) {
    for (int64_t m = 0; m < (p.symmetric ? n + 1 : p.n2); m += width) {
      result.push_back({n, std::min(p.n, n + height), m, std::min(p.n2, m + width), p.symmetric && m == n});
    }
  }
  return result;
}

// The rows of part `part` of `parts` of equal area.
GramTile rows_of(GramTile tile, int64_t part, int64_t parts) {
  const int64_t steps = (tile.row_end - tile.row + ROW_STEP - 1) / ROW_STEP;
  const auto cut = [&](int64_t k) {
    const double share = static_cast<double>(k) / static_cast<double>(parts);
    const auto before = static_cast<int64_t>(static_cast<double>(steps) * (tile.lower ? std::sqrt(share) : share));
    return k == parts ? tile.row_end : tile.row + before * ROW_STEP;
  };
  const int64_t begin = cut(part), end = cut(part + 1);
  tile.row = begin;
  tile.row_end = end;
  return tile;
}

template <class T>
void run(const Gram<T>& p) {
  if (p.outputs == 0) std::fill_n(p.out, p.full ? 0 : p.n * p.n2, T(0));
  if (p.outputs == 0) return;
  const GramBlocks blocks(p.w, p.outputs);
  const std::vector<GramTile> all = tiles(p);
  const int64_t lanes = ON_ISA(Vec<T>::LANES), count = static_cast<int64_t>(all.size());
  const int64_t threads = threads_for(p.w.entries * p.n * ((p.n2 + lanes - 1) / lanes));
  const int64_t parts = count >= 4 * threads ? 1 : threads;
  torch::stable::parallel_for(0, parts * count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const GramTile tile = rows_of(all[item % count], item / count, parts);
      if (tile.row < tile.row_end) ON_ISA(gram_tile<T>(p, tile, blocks));
    }
  });
}

// The shapes that Gram speaks of, after the checks.
struct Sizes {
  int64_t inputs, rows, outputs;
};

// Inputs and signals of one side, contiguous.
std::pair<Tensor, Tensor> side(const char* a_name, const Tensor& a, const char* b_name, const Tensor& b, ScalarType type,
                               const Sizes& s) {
  const Tensor inputs = matrix("ntk_gram", a_name, a, type, s.inputs, -1);
  STD_TORCH_CHECK(b.dim() == 3 && b.scalar_type() == type, "ntk_gram: ", b_name, " must be [M, O, N] of the others' dtype");
  STD_TORCH_CHECK(b.size(0) == s.rows && b.size(1) == s.outputs && b.size(2) == inputs.size(1), "ntk_gram: ", b_name,
                  " must be [", s.rows, ", ", s.outputs, ", ", inputs.size(1), "], got [", b.size(0), ", ", b.size(1), ", ",
                  b.size(2), "]");
  return {inputs, torch::stable::contiguous(b)};
}

Tensor ntk_gram_cpu(Tensor offsets, Tensor indices, std::optional<Tensor> squares, Tensor a, Tensor b,
                    std::optional<Tensor> a2, std::optional<Tensor> b2, bool full) {
  const Pattern w = pattern("ntk_gram", offsets, indices, std::nullopt);
  const ScalarType type = a.scalar_type();
  STD_TORCH_CHECK(type == ScalarType::Float || type == ScalarType::Double, "ntk_gram: a must be float32 or float64");
  if (squares) squares = vector("ntk_gram", "squares", *squares, type, w.entries);
  STD_TORCH_CHECK(b.dim() == 3, "ntk_gram: b must be [M, O, N], got ", b.dim(), " dimensions");
  const bool symmetric = !a2 && !b2;
  const Sizes sizes{a.size(0), w.rows, b.size(1)};
  const auto [left_a, left_b] = side("a", a, "b", b, type, sizes);
  const auto [right_a, right_b] =
      symmetric ? std::pair(left_a, left_b) : side("a2", a2.value_or(left_a), "b2", b2.value_or(left_b), type, sizes);
  const int64_t n = left_a.size(1), n2 = right_a.size(1), outputs = sizes.outputs;
  Tensor result = full ? torch::stable::new_empty(a, {n, n2, outputs, outputs}) : torch::stable::new_empty(a, {n, n2});
  const auto call = [&]<class T>() {
    run<T>({w, squares ? data<T>(*squares) : nullptr, data<T>(left_a), data<T>(left_b), data<T>(right_a), data<T>(right_b),
            static_cast<T*>(result.data_ptr()), n, n2, outputs, symmetric, full && outputs != 1});
  };
  if (type == ScalarType::Float) call.template operator()<float>();
  else call.template operator()<double>();
  return result;
}

}  // namespace
}  // namespace sparseprune

STABLE_TORCH_LIBRARY_IMPL(sparseprune, CPU, m) { m.impl("ntk_gram", TORCH_BOX(&sparseprune::ntk_gram_cpu)); }
