// spconv, spconv_dx, spconv_dw, spconv_backward: one walk over the kept entries, in both directions.
#include "cpu/spconv.h"

#include <memory>
#include <optional>
#include <tuple>
#include <vector>

#include "cpu/conv_arguments.h"
#include "cpu/conv_spans.h"
#include "lines.h"
#include "products.h"

#define KERNELS "cpu/spconv_kernels.h"
#include "each_isa.h"

namespace sparseprune {
namespace {

constexpr int64_t SHORT = 8192;     // entries whose lists may be walked for every few pixels
constexpr int64_t GRAIN = 1 << 19;  // products that pay for a thread
constexpr int64_t GROUPS = 32;      // of strips, each with sums of its own

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
    const int64_t cost = starts(entries.rows);
    const int64_t products = std::max<int64_t>(size * pixels / std::max<int64_t>(cost * groups, 1), 1);
    torch::stable::parallel_for(0, cost * groups, std::max<int64_t>(GRAIN / products, 1), [&](int64_t from, int64_t to) {
      // For the dots of a row, each a register of 64 bytes at most.
      const auto scratch = lines<char>(mode == GATHER ? 0 : (entries.longest + 16) * 64);
      for (int64_t g = from / cost; g * cost < to; ++g) {
        const int64_t first = row_at(from - g * cost), last = row_at(to - g * cost);
        for (int64_t s = strips * g / groups, begin = s; s < strips * (g + 1) / groups && first < last; ++s) {
          strip(s, first, last, weight.get(), sums.get() + size * g, s > begin, scratch.get());
        }
      }
    });
    if (mode != GATHER) add_spans<T>(sums.get(), groups, size, entries.place.get(), dvalues);
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

  // What the rows before cost, in entries: threads take equal ranges of it.
  int64_t starts(int64_t row) const { return entries.row_begin[row] + ROW_COST * row; }

  // The first row that starts at `cost` or later.
  int64_t row_at(int64_t cost) const {
    int64_t low = 0, high = entries.rows;
    while (low < high) {
      const int64_t middle = low + (high - low) / 2;
      if (starts(middle) < cost) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  void strip(int64_t s, int64_t first, int64_t last, const C* weight, C* sums, bool add, void* scratch) const {
    const int lanes = ON_ISA(Vec<Sum<T>>::LANES);
    const auto patches = plan.patches(plan.strips()[s], WIDE * lanes, lanes);
    for (int64_t p = 0; p < entries.panels; ++p) {
      const int32_t* begin = entries.begin.data() + p * entries.rows * entries.taps;
      const Walk<T, C> walk{begin, entries.offset.get(), weight, other, own, bias, out, sums, entries.taps, plan.own_plane(),
                            p == 0, add, entries.size() <= SHORT};
      ON_ISA(conv_walk<T>(mode, walk, first, last, patches, scratch));
    }
  }
};

// Half-precision sums must not be stored between panels.
Load load(int64_t own_channels, const Tensor& other, int64_t entries) {
  return {own_channels, other.size(0), entries, static_cast<int64_t>(other.element_size()),
          other.scalar_type() != ScalarType::BFloat16};
}

ConvPlan forward_plan(const Geometry& g, const Tensor& x, int64_t outputs, int64_t entries) {
  const int64_t height = x.size(1), width = x.size(2);
  return {Axis::forward(g, 0, height, g.output(0, height)), Axis::forward(g, 1, width, g.output(1, width)), x.size(3),
          load(outputs, x, entries)};
}

Tensor spconv_cpu(Tensor values, Tensor row_offsets, Tensor columns, Tensor x, std::optional<Tensor> bias,
                  std::vector<int64_t> geometry) {
  const char* op = "spconv";
  const Geometry g(geometry);
  const ScalarType type = values.scalar_type();
  x = images(op, "x", x, type, {-1, -1, -1, -1});
  values = vector(op, "values", values, type, columns.numel());
  const ByOutput pattern = by_output(op, row_offsets, columns, x.size(0), g);
  if (bias) bias = vector(op, "bias", *bias, type, pattern.outputs);
  const int64_t height = g.output(0, x.size(1)), width = g.output(1, x.size(2)), batch = x.size(3);
  Tensor y = torch::stable::new_empty(x, {pattern.outputs, height, width, batch});
  const ConvPlan plan = forward_plan(g, x, pattern.outputs, columns.numel());
  const ConvEntries entries(pattern, plan);
  on_type(op, type, [&]<class T>() {
    Job<T>{GATHER, plan, entries, data<T>(values), data<T>(x), nullptr, bias ? data<T>(*bias) : nullptr,
           static_cast<T*>(y.data_ptr()), nullptr, height * width * batch}.run();
  });
  return y;
}

Tensor spconv_dw_cpu(Tensor row_offsets, Tensor columns, Tensor x, Tensor grad, std::vector<int64_t> geometry) {
  const char* op = "spconv_dw";
  const Geometry g(geometry);
  const ScalarType type = x.scalar_type();
  x = images(op, "x", x, type, {-1, -1, -1, -1});
  const ByOutput pattern = by_output(op, row_offsets, columns, x.size(0), g);
  const int64_t height = g.output(0, x.size(1)), width = g.output(1, x.size(2)), batch = x.size(3);
  grad = images(op, "grad", grad, type, {pattern.outputs, height, width, batch});
  Tensor dvalues = torch::stable::new_empty(x, {columns.numel()});
  const ConvPlan plan = forward_plan(g, x, pattern.outputs, columns.numel());
  const ConvEntries entries(pattern, plan);
  on_type(op, type, [&]<class T>() {
    Job<T>{DOT, plan, entries, nullptr, data<T>(x), data<T>(grad), nullptr, nullptr, static_cast<T*>(dvalues.data_ptr()),
           height * width * batch}.run();
  });
  return dvalues;
}

// dX, and dW where x is given.
std::tuple<Tensor, Tensor> backward(const char* op, Tensor values, const ByInput& pattern, int64_t kept, const Tensor* x,
                                    Tensor grad, int64_t height, int64_t width, const Geometry& g) {
  const ScalarType type = values.scalar_type();
  values = vector(op, "values", values, type, kept);
  grad = images(op, "grad", grad, type, {-1, g.output(0, height), g.output(1, width), -1});
  const int64_t batch = grad.size(3);
  Tensor dx = torch::stable::new_empty(grad, {pattern.inputs, height, width, batch});
  Tensor dvalues = torch::stable::new_empty(values, {x == nullptr ? 0 : kept});
  const ConvPlan plan(Axis::backward(g, 0, height, grad.size(1)), Axis::backward(g, 1, width, grad.size(2)), batch,
                      load(pattern.inputs, grad, kept));
  const ConvEntries entries(pattern, plan);
  on_type(op, type, [&]<class T>() {
    Job<T>{x == nullptr ? GATHER : BOTH, plan, entries, data<T>(values), data<T>(grad), x == nullptr ? nullptr : data<T>(*x),
           nullptr, static_cast<T*>(dx.data_ptr()), static_cast<T*>(dvalues.data_ptr()),
           grad.size(1) * grad.size(2) * batch}.run();
  });
  return {dx, dvalues};
}

Tensor spconv_dx_cpu(Tensor values, Tensor column_offsets, Tensor rows, Tensor order, Tensor grad, std::vector<int64_t> size,
                     std::vector<int64_t> geometry) {
  const char* op = "spconv_dx";
  const Geometry g(geometry);
  check_size(op, size);
  const ByInput pattern = by_input(op, column_offsets, rows, order, g);
  return std::get<0>(backward(op, values, pattern, rows.numel(), nullptr, grad, size[0], size[1], g));
}

std::tuple<Tensor, Tensor> spconv_backward_cpu(Tensor values, Tensor column_offsets, Tensor rows, Tensor order, Tensor x,
                                               Tensor grad, std::vector<int64_t> geometry) {
  const char* op = "spconv_backward";
  const Geometry g(geometry);
  const ByInput pattern = by_input(op, column_offsets, rows, order, g);
  STD_TORCH_CHECK(grad.dim() == 4, op, ": grad must be [O, OH, OW, B]");
  x = images(op, "x", x, values.scalar_type(), {pattern.inputs, -1, -1, grad.size(3)});
  return backward(op, values, pattern, rows.numel(), &x, grad, x.size(1), x.size(2), g);
}

}  // namespace
}  // namespace sparseprune

STABLE_TORCH_LIBRARY_IMPL(sparseprune, CPU, m) {
  m.impl("spconv", TORCH_BOX(&sparseprune::spconv_cpu));
  m.impl("spconv_dx", TORCH_BOX(&sparseprune::spconv_dx_cpu));
  m.impl("spconv_dw", TORCH_BOX(&sparseprune::spconv_dw_cpu));
  m.impl("spconv_backward", TORCH_BOX(&sparseprune::spconv_backward_cpu));
}
