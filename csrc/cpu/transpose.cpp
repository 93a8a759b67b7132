// [R, C] -> [C, R] for elements of 2, 4 and 8 bytes.
#include "products.h"

#define KERNELS "cpu/transpose_kernels.h"
#include "each_isa.h"

namespace sparseprune {
namespace {

constexpr int64_t STRIP = 32;  // rows of the result that a thread takes at a time: a line of the smallest elements

template <class C>
void transpose_as(const Tensor& x, Tensor& y) {
  const int64_t rows = x.size(0), columns = x.size(1), strips = (columns + STRIP - 1) / STRIP;
  const int64_t grain = 1 + 65536 / (STRIP * std::max<int64_t>(1, rows));
  torch::stable::parallel_for(0, strips, grain, [&](int64_t begin, int64_t end) {
    ON_ISA(transpose_rows<C>(data<C>(x), rows, columns, static_cast<C*>(y.data_ptr()), begin * STRIP,
                             std::min(columns, end * STRIP)));
  });
}

Tensor transpose_cpu(Tensor x) {
  STD_TORCH_CHECK(x.dim() == 2, "transpose: x must be a matrix, got ", x.dim(), " dimensions");
  x = torch::stable::contiguous(x);
  Tensor y = torch::stable::new_empty(x, {x.size(1), x.size(0)});
  const auto size = x.element_size();
  if (size == 8) transpose_as<uint64_t>(x, y);
  else if (size == 4) transpose_as<uint32_t>(x, y);
  else if (size == 2) transpose_as<uint16_t>(x, y);
  else STD_TORCH_CHECK(false, "transpose: elements must have 2, 4 or 8 bytes, got ", size);
  return y;
}

}  // namespace
}  // namespace sparseprune

STABLE_TORCH_LIBRARY_IMPL(sparseprune, CPU, m) { m.impl("transpose", TORCH_BOX(&sparseprune::transpose_cpu)); }
