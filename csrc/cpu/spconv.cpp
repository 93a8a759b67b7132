// spconv, spconv_dx, spconv_dw, spconv_backward: one walk over the kept entries, in both directions.
#include "spconv.h"

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <memory>
#include <optional>
#include <stdexcept>
#include <tuple>

#include "conv_entries.h"

#define KERNELS "cpu/spconv_kernels.h"
#include "each_isa.h"

namespace sparseprune {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr int64_t ROW_COST = 4;         // of a row's pixels, in entries
constexpr int64_t GRAIN = 1 << 20;      // products that pay for a thread
constexpr int64_t SHORT = 8192;  // entries whose lists may be walked for every few pixels
constexpr int64_t GROUPS = 32;          // of strips, each with sums of its own

struct Aligned {
  void operator()(void* p) const { ::operator delete(p, std::align_val_t{64}); }
};

// One operation of one type, after the checks.
template <class T>
struct Job {
  using C = Sum<T>;
  Mode mode;
  const ConvPlan& plan;
  const ConvEntries& entries;
  const T *values, *other, *own, *bias;
  T *out, *dvalues;
  int64_t pixels;

  void run() const {
    const int64_t strips = static_cast<int64_t>(plan.strips().size()), size = entries.size();
    const int64_t groups = mode == GATHER ? strips : std::min(strips, GROUPS);
    const auto weight = weights();
    const auto sums = std::make_unique_for_overwrite<C[]>(mode == GATHER ? 0 : size * groups);
    // Rows begin in this numbering at entries before + ROW_COST * rows before: threads take equal ranges of it.
    const int64_t cost = size + ROW_COST * entries.rows;
    const int64_t products = std::max<int64_t>(size * pixels / std::max<int64_t>(cost * groups, 1), 1);
    torch::stable::parallel_for(0, cost * groups, std::max<int64_t>(GRAIN / products, 1), [&](int64_t from, int64_t to) {
      const auto scratch = room();
      for (int64_t g = from / cost; g * cost < to; ++g) {
        const int64_t first = row_at(from - g * cost), last = row_at(to - g * cost);
        if (first == last) continue;
        for (int64_t s = strips * g / groups, begin = s; s < strips * (g + 1) / groups; ++s) {
          strip(s, first, last, weight.get(), sums.get() + size * g, s > begin, scratch.get());
        }
      }
    });
    if (mode != GATHER) give(sums.get(), groups);
  }

 private:
  // The values in the order of the entries.
  std::unique_ptr<C[]> weights() const {
    if (mode == DOT) return nullptr;
    auto weight = std::make_unique_for_overwrite<C[]>(entries.size());
    torch::stable::parallel_for(0, entries.size(), 1 << 15, [&](int64_t from, int64_t to) {
      for (int64_t j = from; j < to; ++j) weight[j] = widen(values[entries.place[j]]);
    });
    return weight;
  }

  // The first row that begins at `cost` or later.
  int64_t row_at(int64_t cost) const {
    int64_t low = 0, high = entries.rows;
    while (low < high) {
      const int64_t middle = low + (high - low) / 2;
      (entries.row_begin[middle] + ROW_COST * middle < cost ? low : high) = middle + (entries.row_begin[middle] + ROW_COST * middle < cost);
    }
    return low;
  }

  std::unique_ptr<void, Aligned> room() const {
    if (mode == GATHER) return nullptr;
    return std::unique_ptr<void, Aligned>(::operator new((entries.longest + 16) * 64, std::align_val_t{64}));
  }

  void strip(int64_t s, int64_t first, int64_t last, const C* weight, C* sums, bool add, void* scratch) const {
    const int lanes = ON_ISA(lanes<T>());
    const auto pieces = plan.pieces(plan.strips()[s], WIDE * lanes, lanes);
    for (int64_t p = 0; p < entries.panels; ++p) {
      const Walk<T, C> walk{entries.begin.data() + p * entries.rows * entries.taps, entries.offset.get(), weight, other, own,
                            bias, out, sums, entries.taps, plan.own_plane(), p == 0, add,
                            entries.size() <= SHORT};
      ON_ISA(walk<T>(mode, walk, first, last, pieces, scratch));
    }
  }

  // The sums of the groups, in their order, to the places of the entries.
  void give(const C* sums, int64_t groups) const {
    const int64_t size = entries.size();
    torch::stable::parallel_for(0, size, 1 << 13, [&](int64_t from, int64_t to) {
      for (int64_t j = from; j < to; ++j) {
        C sum = 0;
        for (int64_t g = 0; g < groups; ++g) sum += sums[size * g + j];
        dvalues[entries.place[j]] = narrow<T>(sum);
      }
    });
  }
};

void check(bool holds, const char* what) {
  if (!holds) throw std::runtime_error(std::string("sparseprune: sparse convolution: ") + what);
}

void check_images(const Tensor& x, const Tensor& other) {
  check(x.dim() == 4 && x.is_contiguous(), "images must be contiguous [C, H, W, B]");
  check(x.scalar_type() == other.scalar_type(), "all dtypes must be the same");
}

const int32_t* integers(const Tensor& t) {
  check(t.scalar_type() == ScalarType::Int && t.dim() == 1 && t.is_contiguous(), "patterns must be contiguous int32 vectors");
  return static_cast<const int32_t*>(t.data_ptr());
}

ByOutput by_output(const Tensor& offsets, const Tensor& columns, int64_t channels, const Geometry& g) {
  const int64_t outputs = offsets.numel() - 1;
  check(outputs >= 0 && outputs % g.groups == 0 && channels % g.groups == 0, "channels must be a multiple of groups");
  return {integers(offsets), integers(columns), outputs, g.groups, channels};
}

ByInput by_input(const Tensor& offsets, const Tensor& rows, const Tensor& order, const Geometry& g) {
  check(offsets.numel() >= 1 && (offsets.numel() - 1) % g.taps() == 0, "column_offsets must be of [C KH KW + 1]");
  check(rows.numel() == order.numel(), "rows and order must be of one length");
  return {integers(offsets), integers(rows), integers(order), (offsets.numel() - 1) / g.taps()};
}

Load load(const Tensor& other, int64_t own_channels, int64_t other_channels, const Tensor& entries) {
  return {own_channels, other_channels, entries.numel(), static_cast<int64_t>(other.element_size()),
          other.scalar_type() != ScalarType::BFloat16};
}

template <class T>
const T* data(const Tensor& t) {
  return static_cast<const T*>(t.data_ptr());
}

// f(T()) for the type of the images.
template <class F>
void of_type(const Tensor& t, const F& f) {
  switch (t.scalar_type()) {
    case ScalarType::Float: return f(float());
    case ScalarType::Double: return f(double());
    case ScalarType::BFloat16: return f(BFloat16());
    default: throw std::runtime_error("sparseprune: sparse convolution: dtype must be float32, float64 or bfloat16");
  }
}

Tensor spconv_cpu(Tensor values, Tensor row_offsets, Tensor columns, Tensor x, std::optional<Tensor> bias,
                  std::vector<int64_t> geometry) {
  const Geometry g(geometry);
  check_images(x, values);
  const ByOutput pattern = by_output(row_offsets, columns, x.size(0), g);
  check(values.numel() == columns.numel() && values.is_contiguous(), "values and columns must be of one length");
  check(!bias || (bias->numel() == pattern.outputs && bias->is_contiguous()), "bias must be of [O]");
  check(!bias || bias->scalar_type() == x.scalar_type(), "all dtypes must be the same");
  const int64_t height = g.output(0, x.size(1)), width = g.output(1, x.size(2)), batch = x.size(3);
  Tensor y = torch::stable::new_empty(x, {pattern.outputs, height, width, batch});
  const ConvPlan plan(Axis::forward(g, 0, x.size(1), height), Axis::forward(g, 1, x.size(2), width), batch,
                      load(x, pattern.outputs, x.size(0), columns));
  const ConvEntries entries(pattern, plan);
  of_type(x, [&](auto type) {
    using T = decltype(type);
    Job<T>{GATHER, plan, entries, data<T>(values), data<T>(x), nullptr, bias ? data<T>(*bias) : nullptr,
           static_cast<T*>(y.data_ptr()), nullptr, height * width * batch}.run();
  });
  return y;
}

Tensor spconv_dw_cpu(Tensor row_offsets, Tensor columns, Tensor x, Tensor grad, std::vector<int64_t> geometry) {
  const Geometry g(geometry);
  check_images(x, grad);
  check_images(grad, x);
  const ByOutput pattern = by_output(row_offsets, columns, x.size(0), g);
  const int64_t height = g.output(0, x.size(1)), width = g.output(1, x.size(2)), batch = x.size(3);
  check(grad.size(0) == pattern.outputs && grad.size(1) == height && grad.size(2) == width && grad.size(3) == batch,
        "grad must be of [O, OH, OW, B]");
  Tensor dvalues = torch::stable::new_empty(x, {columns.numel()});
  const ConvPlan plan(Axis::forward(g, 0, x.size(1), height), Axis::forward(g, 1, x.size(2), width), batch,
                      load(x, pattern.outputs, x.size(0), columns));
  const ConvEntries entries(pattern, plan);
  of_type(x, [&](auto type) {
    using T = decltype(type);
    Job<T>{DOT, plan, entries, nullptr, data<T>(x), data<T>(grad), nullptr, nullptr, static_cast<T*>(dvalues.data_ptr()),
           height * width * batch}.run();
  });
  return dvalues;
}

// dX, and dW where x is given.
std::tuple<Tensor, Tensor> backward(const Tensor& values, const ByInput& pattern, const Tensor* x, const Tensor& grad,
                                    int64_t height, int64_t width, const Geometry& g) {
  check_images(grad, values);
  check(values.is_contiguous(), "values must be contiguous");
  const int64_t batch = grad.size(3);
  check(grad.size(1) == g.output(0, height) && grad.size(2) == g.output(1, width), "grad must be of [O, OH, OW, B]");
  Tensor dx = torch::stable::new_empty(grad, {pattern.inputs, height, width, batch});
  Tensor dvalues = torch::stable::new_empty(values, {x == nullptr ? 0 : values.numel()});
  const ConvPlan plan(Axis::backward(g, 0, height, grad.size(1)), Axis::backward(g, 1, width, grad.size(2)), batch,
                      load(grad, pattern.inputs, grad.size(0), values));
  const ConvEntries entries(pattern, plan);
  of_type(grad, [&](auto type) {
    using T = decltype(type);
    Job<T>{x == nullptr ? GATHER : BOTH, plan, entries, data<T>(values), data<T>(grad), x == nullptr ? nullptr : data<T>(*x),
           nullptr, static_cast<T*>(dx.data_ptr()), static_cast<T*>(dvalues.data_ptr()),
           grad.size(1) * grad.size(2) * batch}.run();
  });
  return {dx, dvalues};
}

Tensor spconv_dx_cpu(Tensor values, Tensor column_offsets, Tensor rows, Tensor order, Tensor grad, std::vector<int64_t> size,
                     std::vector<int64_t> geometry) {
  const Geometry g(geometry);
  check(size.size() == 2 && size[0] >= 0 && size[1] >= 0, "size must be [H, W]");
  const ByInput pattern = by_input(column_offsets, rows, order, g);
  check(values.numel() == rows.numel(), "values and rows must be of one length");
  return std::get<0>(backward(values, pattern, nullptr, grad, size[0], size[1], g));
}

std::tuple<Tensor, Tensor> spconv_backward_cpu(Tensor values, Tensor column_offsets, Tensor rows, Tensor order, Tensor x,
                                               Tensor grad, std::vector<int64_t> geometry) {
  const Geometry g(geometry);
  check_images(x, values);
  const ByInput pattern = by_input(column_offsets, rows, order, g);
  check(values.numel() == rows.numel() && x.size(0) == pattern.inputs, "x must be of [C, H, W, B], values of [nnz]");
  check(grad.dim() == 4 && x.size(3) == grad.size(3), "x and grad must have one batch");
  return backward(values, pattern, &x, grad, x.size(1), x.size(2), g);
}

}  // namespace
}  // namespace sparseprune

STABLE_TORCH_LIBRARY_IMPL(sparseprune, CPU, m) {
  m.impl("spconv", TORCH_BOX(&sparseprune::spconv_cpu));
  m.impl("spconv_dx", TORCH_BOX(&sparseprune::spconv_dx_cpu));
  m.impl("spconv_dw", TORCH_BOX(&sparseprune::spconv_dw_cpu));
  m.impl("spconv_backward", TORCH_BOX(&sparseprune::spconv_backward_cpu));
}
