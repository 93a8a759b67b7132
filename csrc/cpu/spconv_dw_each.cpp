// Gradients of a convolution's kept weights for each example and output, on an input that is padded beforehand.
#include "cpu/spconv_dw_each.h"

#include <vector>

#include "cpu/conv_plan.h"
#include "lines.h"
#include "products.h"

#define KERNELS "cpu/spconv_dw_each_kernels.h"
#include "each_isa.h"

namespace sparseprune {
namespace {

constexpr const char* OP = "spconv_dw_each";

// x [channels, height, width, batch] with zeros around it.
template <class T>
struct Padded {
  int64_t height, width;
  Lines<T> copy;
  const T* x;

  Padded(const Tensor& given, const Geometry& g)
      : height(given.size(1) + g.before[0] + g.after[0]),
        width(given.size(2) + g.before[1] + g.after[1]),
        x(data<T>(given)) {
    if (height == given.size(1) && width == given.size(2)) return;
    const int64_t channels = given.size(0), batch = given.size(3);
    const int64_t line = given.size(2) * batch, plane = height * width * batch;
    copy = lines<T>(channels * plane);
    torch::stable::parallel_for(0, channels, 1 + (1 << 16) / (plane + 1), [&](int64_t begin, int64_t end) {
      std::fill(copy.get() + begin * plane, copy.get() + end * plane, T(0));
      for (int64_t from = begin * given.size(1); from < end * given.size(1); ++from) {
        const int64_t c = from / given.size(1), h = from % given.size(1) + g.before[0];
        std::copy_n(data<T>(given) + from * line, line, copy.get() + c * plane + (h * width + g.before[1]) * batch);
      }
    });
    x = copy.get();
  }
};

template <class T>
void run(const Pattern& w, const Tensor& x, const Tensor& grad, const Geometry& g, Tensor& out) {
  const Padded<T> padded(x, g);
  const int64_t height = grad.size(1), width = grad.size(2), outputs = grad.size(3), batch = grad.size(4);
  if (height * width == 0) std::fill_n(static_cast<T*>(out.data_ptr()), out.numel(), T(0));  // no line writes them
  if (w.entries * height * width * outputs * batch == 0) return;
  std::vector<int64_t> offset(w.entries);
  for (int64_t j = 0; j < w.entries; ++j) {
    const int64_t tap = w.indices[j] % g.taps(), channel = w.indices[j] / g.taps();
    const int64_t h = tap / g.kernel[1] * g.dilation[0], v = tap % g.kernel[1] * g.dilation[1];
    offset[j] = ((channel * padded.height + h) * padded.width + v) * batch;
  }
  const Each<T> each{padded.x, data<T>(grad), static_cast<T*>(out.data_ptr()), offset.data(),
                     g.stride[0] * padded.width * batch, g.stride[1] * batch, height, width, outputs, batch};
  const int64_t lanes = ON_ISA(Vec<T>::LANES);
  const int64_t parts = threads_for(w.entries * height * width * outputs * ((batch + lanes - 1) / lanes));
  torch::stable::parallel_for(0, parts, 1, [&](int64_t begin, int64_t end) {
    const int64_t last = balanced(w.offsets, w.rows, 0, end, parts);
    for (int64_t i = balanced(w.offsets, w.rows, 0, begin, parts); i < last; ++i) {
      ON_ISA(each_row<T>(each, i, w.offsets[i], w.offsets[i + 1]));
    }
  });
}

Tensor spconv_dw_each_cpu(Tensor row_offsets, Tensor columns, Tensor x, Tensor grad, std::vector<int64_t> geometry) {
  const Geometry g(geometry);
  const Pattern w = pattern(OP, row_offsets, columns, std::nullopt);
  const ScalarType type = x.scalar_type();
  STD_TORCH_CHECK(g.groups == 1, OP, ": groups must be 1, got ", g.groups);
  STD_TORCH_CHECK(type == ScalarType::Float || type == ScalarType::Double, OP, ": x must be float32 or float64");
  STD_TORCH_CHECK(x.dim() == 4, OP, ": x must be [C, H, W, N], got ", x.dim(), " dimensions");
  STD_TORCH_CHECK(grad.dim() == 5 && grad.scalar_type() == type, OP, ": grad must be [M, OH, OW, O, N] of x's dtype");
  const int64_t wanted[] = {w.rows, g.output(0, x.size(1)), g.output(1, x.size(2)), grad.size(3), x.size(3)};
  for (int64_t i = 0; i < 5; ++i) {
    STD_TORCH_CHECK(grad.size(i) == wanted[i], OP, ": grad must have ", wanted[i], " along dimension ", i, ", got ",
                    grad.size(i));
  }
  x = torch::stable::contiguous(x);
  grad = torch::stable::contiguous(grad);
  Tensor result = torch::stable::new_empty(x, {w.entries, grad.size(3), grad.size(4)});
  if (type == ScalarType::Float) run<float>(w, x, grad, g, result);
  else run<double>(w, x, grad, g, result);
  return result;
}

}  // namespace
}  // namespace sparseprune

STABLE_TORCH_LIBRARY_IMPL(sparseprune, CPU, m) { m.impl("spconv_dw_each", TORCH_BOX(&sparseprune::spconv_dw_each_cpu)); }
