// Dot products at the kept entries (sddmm), and both gradients of y = W x in one walk over the inputs (spmm_backward).
#include "cpu/dots.h"

#include <tuple>

#include "lines.h"

#define KERNELS "cpu/dots_kernels.h"
#include "each_isa.h"

namespace sparseprune {
namespace {

// Rows [begin, end), tile after tile of the batch.
template <class T>
void run(const Dots<T>& p, int64_t begin, int64_t end) {
  const int64_t width = ON_ISA(dots_width<T>(p)), base = p.w.offsets[begin], entries = p.w.offsets[end] - base;
  const bool packs = worth_packing(p.batch, width, p.others, entries);
  const Lines<T> packed = lines<T>(packs ? p.others * width : 0);
  const Lines<Sum<T>> partial = lines<Sum<T>>(entries);
  for (int64_t column = 0; column < p.batch; column += width) {
    const int64_t columns = std::min(width, p.batch - column);
    DotsBlock<T> block{begin, end,  column,      p.right + column, p.batch, partial.get(),
                       base,  column == 0, column + columns == p.batch};
    if (packs) {
      for (int64_t k = 0; k < p.others; ++k) {
        std::memcpy(packed.get() + k * width, block.right + k * p.batch, columns * sizeof(T));
      }
      block.right = packed.get();
      block.pitch = width;
    }
    ON_ISA(dots_tile<T>(p, block, columns));
  }
}

template <class T>
void run_parallel(const Dots<T>& p) {
  if (p.batch == 0) {  // no tile writes them
    std::fill_n(p.dots, p.w.entries, narrow<T>(0));
    return;
  }
  const int64_t lanes = ON_ISA(Vec<Sum<T>>::LANES), vectors = (p.batch + lanes - 1) / lanes;
  const int64_t parts = threads_for((p.w.entries + p.w.rows) * vectors * 2);
  torch::stable::parallel_for(0, parts, 1, [&](int64_t begin, int64_t end) {
    run(p, balanced(p.w.offsets, p.w.rows, ROW_COST, begin, parts), balanced(p.w.offsets, p.w.rows, ROW_COST, end, parts));
  });
}

Tensor sddmm_cpu(Tensor offsets, Tensor indices, std::optional<Tensor> order, Tensor left, Tensor right) {
  const Pattern w = pattern("sddmm", offsets, indices, order);
  const ScalarType type = left.scalar_type();
  left = matrix("sddmm", "left", left, type, w.rows, -1);
  right = matrix("sddmm", "right", right, type, -1, left.size(1));
  Tensor result = torch::stable::new_empty(left, {w.entries});
  on_type("sddmm", type, [&]<class T>() {
    run_parallel<T>({w, data<T>(left), data<T>(right), nullptr, nullptr, static_cast<T*>(result.data_ptr()), right.size(0),
                     left.size(1)});
  });
  return result;
}

std::tuple<Tensor, Tensor> spmm_backward_cpu(Tensor values, Tensor offsets, Tensor indices, Tensor order, Tensor dense,
                                             Tensor grad) {
  const Pattern w = pattern("spmm_backward", offsets, indices, order);
  const ScalarType type = dense.scalar_type();
  dense = matrix("spmm_backward", "dense", dense, type, w.rows, -1);
  grad = matrix("spmm_backward", "grad", grad, type, -1, dense.size(1));
  values = vector("spmm_backward", "values", values, type, w.entries);
  Tensor sums = torch::stable::new_empty(dense, {w.rows, dense.size(1)});
  Tensor dots = torch::stable::new_empty(dense, {w.entries});
  on_type("spmm_backward", type, [&]<class T>() {
    run_parallel<T>({w, data<T>(dense), data<T>(grad), data<T>(values), static_cast<T*>(sums.data_ptr()),
                     static_cast<T*>(dots.data_ptr()), grad.size(0), dense.size(1)});
  });
  return {sums, dots};
}

}  // namespace
}  // namespace sparseprune

STABLE_TORCH_LIBRARY_IMPL(sparseprune, CPU, m) {
  m.impl("sddmm", TORCH_BOX(&sparseprune::sddmm_cpu));
  m.impl("spmm_backward", TORCH_BOX(&sparseprune::spmm_backward_cpu));
}
