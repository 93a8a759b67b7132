// spconv_nchw, spconv_nchw_dx, spconv_nchw_dw, spconv_nchw_backward: convolutions of images [B, C, H, W].
#include "cpu/spconv_nchw.h"

#include <bit>
#include <memory>
#include <numeric>
#include <optional>
#include <tuple>

#include "cpu/conv_arguments.h"
#include "cpu/conv_spans.h"
#include "lines.h"

#define KERNELS "cpu/spconv_nchw_kernels.h"
#include "each_isa.h"

namespace sparseprune {
namespace {

constexpr int64_t SPANS = 32;       // of strips, each with sums of its own: an order that no number of threads changes
constexpr int64_t GRAIN = 1 << 15;  // products of registers that pay for a thread
constexpr int64_t COPY_COST = 4;    // of a register of an image, in products

// out = bias + W other, and dvalues = own . other: each where it is given.
struct Product {
  const Axis &rows, &columns;
  const Tensor& other;
  int64_t groups;
  const Tensor *values, *bias, *out, *own, *dvalues;
};

template <class T>
struct Job {
  using C = Sum<T>;
  const Product& product;
  const FlatPlan& plan;
  const FlatEntries& entries;
  int64_t lanes, threads;
  const C* weight;       // of the entries; for out
  const int32_t* place;  // of the entries in dvalues

  void run() const {
    const int64_t strips = plan.strips(), parts = entries.parts;
    const int64_t spans = product.own != nullptr ? std::min(strips, SPANS) : strips;
    const std::vector<C> begin = bias();
    const auto sums = std::make_unique_for_overwrite<C[]>(product.own != nullptr ? entries.size * spans : 0);
    const int64_t grain = std::max<int64_t>((spans * parts + threads - 1) / threads, 1);
    torch::stable::parallel_for(0, spans * parts, grain, [&](int64_t from, int64_t to) {
      const Scratch scratch(*this);
      for (int64_t i = from; i < to; ++i) {
        const int64_t span = i / parts, part = i % parts;
        C* const dots = sums.get() + entries.size * span;
        if (product.own != nullptr) std::fill(dots + entries.entry_begin[part], dots + entries.entry_begin[part + 1], C(0));
        for (int64_t s = strips * span / spans; s < strips * (span + 1) / spans; ++s) {
          strip(s, part, begin.empty() ? nullptr : begin.data(), dots, scratch);
        }
      }
    });
    if (product.own != nullptr) {
      add_spans<T>(sums.get(), spans, entries.size, place, static_cast<T*>(product.dvalues->data_ptr()));
    }
  }

 private:
  int64_t channels() const { return product.other.size(1); }

  // A thread's memory: the copy, flat own pixels, sums between panels.
  struct Scratch {
    Lines<C> copy, flat, partial;

    explicit Scratch(const Job& job)
        : copy(lines<C>(job.channels() * job.plan.plane())),
          flat(lines<C>(job.entries.rows * job.plan.own_plane())),
          partial(lines<C>(job.entries.panels > 1 ? job.entries.rows * ON_ISA(flat_tile()) * job.lanes : 0)) {
      clear(job);
    }
    void clear(const Job& job) const { std::fill_n(copy.get(), job.channels() * job.plan.plane(), C(0)); }
  };

  std::vector<C> bias() const {
    std::vector<C> result;
    for (int64_t i = 0; product.bias != nullptr && i < entries.rows; ++i) result.push_back(widen(data<T>(*product.bias)[i]));
    return result;
  }

  template <class Number>
  static Image<Number> image(const Tensor& t, int64_t i) {
    return {static_cast<Number*>(t.data_ptr()) + i * t.stride(0), t.stride(1), t.stride(2)};
  }

  void strip(int64_t s, int64_t part, const C* begin, C* dots, const Scratch& scratch) const {
    if (!plan.alike()) scratch.clear(*this);
    const Flat<C> copy{scratch.copy.get(), 0, channels(), plan.plane(), plan.run(), plan.pitch()};
    each_image(s, copy, [&](int64_t i, const Flat<C>& one) {
      ON_ISA(flatten(image<const T>(product.other, i), plan.other_rows(s), plan.other_columns(), one));
    });
    const int64_t first = entries.part_begin[part], last = entries.part_begin[part + 1];
    const Flat<C> flat{scratch.flat.get(), first, last, plan.own_plane(), 0, plan.pitch()};
    for (int64_t phase = 0; phase < entries.phases; ++phase) {
      const Window rows = plan.own_rows(s, phase), columns = plan.own_columns(phase);
      if (rows.length == 0 || columns.length == 0) continue;
      if (product.own != nullptr) {
        std::fill(flat.data + flat.begin * flat.plane, flat.data + flat.end * flat.plane, C(0));
        each_image(s, flat, [&](int64_t i, const Flat<C>& one) {
          ON_ISA(flatten(image<const T>(*product.own, i), rows, columns, one));
        });
        tiles(part, phase, scratch, [&](int64_t n, const Picked<C>& p, int64_t at) {
          ON_ISA(dot_tile(n, p, flat.data + at, plan.own_plane(), dots));
        });
      }
      if (product.out != nullptr) {
        tiles(part, phase, scratch, [&](int64_t n, const Picked<C>& p, int64_t at) {
          ON_ISA(gather_tile(n, p, weight, begin, scratch.partial.get(), flat.data + at, plan.own_plane()));
        });
        each_image(s, flat, [&](int64_t i, const Flat<C>& one) {
          ON_ISA(unflatten(one, rows, columns, image<T>(*product.out, i)));
        });
      }
    }
  }

  // f(image, its part of the flat form) of a strip's images.
  template <class F>
  void each_image(int64_t s, const Flat<C>& flat, const F& f) const {
    Flat<C> one = flat;
    for (int64_t i = plan.first_image(s); i < plan.last_image(s); ++i, one.data += plan.image()) f(i, one);
  }

  // f(registers, picked, place in the flat form) of every tile and panel.
  template <class F>
  void tiles(int64_t part, int64_t phase, const Scratch& scratch, const F& f) const {
    const int64_t most = ON_ISA(flat_tile());
    int64_t n;
    for (int64_t at = 0; at < plan.own_plane(); at += n * lanes) {
      const auto left = static_cast<uint64_t>((plan.own_plane() - at) / lanes);
      n = std::min<int64_t>(most, static_cast<int64_t>(std::bit_floor(left)));
      for (int64_t panel = 0; panel < entries.panels; ++panel) {
        const std::vector<Segment>& s = entries.segments(part, phase, panel);
        f(n, Picked<C>{s.data(), s.data() + s.size(), entries.offset.get(), scratch.copy.get() + at}, at);
      }
    }
  }
};

template <class T, class Walk>
void run(const Product& p, int64_t own_channels, int64_t kept, const Walk& walk) {
  using C = Sum<T>;
  const int64_t lanes = ON_ISA(flat_lanes<C>()), tile = ON_ISA(flat_tile()), batch = p.other.size(0);
  const FlatPlan plan(p.rows, p.columns, batch, {own_channels, p.other.size(1), p.groups, kept, sizeof(C)}, {tile, lanes});
  STD_TORCH_CHECK(p.other.size(1) * plan.plane() <= INT32_MAX, "spconv_nchw: rows of all channels must have fewer than 2^31 ",
                  "pixels, got ", p.other.size(1), " channels of ", plan.pitch(), " columns");
  const int64_t copied = COPY_COST * (own_channels + p.other.size(1));
  const int64_t work = (kept + copied) * plan.points() * batch / lanes, spans = std::clamp<int64_t>(plan.strips(), 1, SPANS);
  const int64_t threads = std::clamp<int64_t>(work / GRAIN, 1, torch::stable::get_num_threads());
  const auto weight = std::make_unique_for_overwrite<C[]>(p.out != nullptr ? kept : 0);
  const auto place = std::make_unique_for_overwrite<int32_t[]>(p.own != nullptr ? kept : 0);
  const T* const values = p.out != nullptr ? data<T>(*p.values) : nullptr;
  const FlatEntries entries(walk(plan), plan, threads / std::gcd(threads, spans), [&](int32_t at, int32_t j) {
    if (p.out != nullptr) weight[at] = widen(values[j]);
    if (p.own != nullptr) place[at] = j;
  });
  Job<T>{p, plan, entries, lanes, threads, weight.get(), place.get()}.run();
}

void run(const char* op, const ByOutput& pattern, const Product& p) {
  on_type(op, p.other.scalar_type(), [&]<class T>() {
    run<T>(p, pattern.outputs, pattern.offsets[pattern.outputs],
           [&](const FlatPlan& plan) { return FlatByOutput(pattern, plan); });
  });
}

Tensor spconv_nchw_cpu(Tensor values, Tensor row_offsets, Tensor columns, Tensor x, std::optional<Tensor> bias,
                       std::vector<int64_t> geometry) {
  const char* op = "spconv_nchw";
  const Geometry g(geometry);
  x = images(op, "x", x, values.scalar_type(), {-1, -1, -1, -1});
  values = vector(op, "values", values, x.scalar_type(), columns.numel());
  const ByOutput pattern = by_output(op, row_offsets, columns, x.size(1), g);
  if (bias) bias = vector(op, "bias", *bias, x.scalar_type(), pattern.outputs);
  const int64_t height = g.output(0, x.size(2)), width = g.output(1, x.size(3));
  const Tensor y = torch::stable::new_empty(x, {x.size(0), pattern.outputs, height, width});
  run(op, pattern, {Axis::forward(g, 0, x.size(2), height), Axis::forward(g, 1, x.size(3), width), x, g.groups, &values,
                    bias ? &*bias : nullptr, &y, nullptr, nullptr});
  return y;
}

Tensor spconv_nchw_dw_cpu(Tensor row_offsets, Tensor columns, Tensor x, Tensor grad, std::vector<int64_t> geometry) {
  const char* op = "spconv_nchw_dw";
  const Geometry g(geometry);
  x = images(op, "x", x, grad.scalar_type(), {-1, -1, -1, -1});
  const ByOutput pattern = by_output(op, row_offsets, columns, x.size(1), g);
  const int64_t height = g.output(0, x.size(2)), width = g.output(1, x.size(3));
  grad = images(op, "grad", grad, x.scalar_type(), {x.size(0), pattern.outputs, height, width});
  const Tensor dvalues = torch::stable::new_empty(x, {columns.numel()});
  run(op, pattern, {Axis::forward(g, 0, x.size(2), height), Axis::forward(g, 1, x.size(3), width), x, g.groups, nullptr, nullptr,
                    nullptr, &grad, &dvalues});
  return dvalues;
}

// dX, and dW where x is given.
std::tuple<Tensor, Tensor> backward(const char* op, Tensor values, const ByInput& pattern, int64_t kept, const Tensor* x,
                                    Tensor grad, int64_t height, int64_t width, const Geometry& g) {
  values = vector(op, "values", values, grad.scalar_type(), kept);
  grad = images(op, "grad", grad, grad.scalar_type(), {-1, -1, g.output(0, height), g.output(1, width)});
  const Tensor dx = torch::stable::new_empty(grad, {grad.size(0), pattern.inputs, height, width});
  const Tensor dvalues = torch::stable::new_empty(values, {x == nullptr ? 0 : kept});
  const Axis rows = Axis::backward(g, 0, height, grad.size(2)), columns = Axis::backward(g, 1, width, grad.size(3));
  on_type(op, grad.scalar_type(), [&]<class T>() {
    run<T>({rows, columns, grad, g.groups, &values, nullptr, &dx, x, &dvalues}, pattern.inputs, kept,
           [&](const FlatPlan& plan) { return FlatByInput(pattern, plan, grad.size(1)); });
  });
  return {dx, dvalues};
}

Tensor spconv_nchw_dx_cpu(Tensor values, Tensor column_offsets, Tensor rows, Tensor order, Tensor grad,
                          std::vector<int64_t> size, std::vector<int64_t> geometry) {
  const char* op = "spconv_nchw_dx";
  const Geometry g(geometry);
  check_size(op, size);
  const ByInput pattern = by_input(op, column_offsets, rows, order, g);
  return std::get<0>(backward(op, values, pattern, rows.numel(), nullptr, grad, size[0], size[1], g));
}

std::tuple<Tensor, Tensor> spconv_nchw_backward_cpu(Tensor values, Tensor column_offsets, Tensor rows, Tensor order, Tensor x,
                                                    Tensor grad, std::vector<int64_t> geometry) {
  const char* op = "spconv_nchw_backward";
  const Geometry g(geometry);
  const ByInput pattern = by_input(op, column_offsets, rows, order, g);
  x = images(op, "x", x, values.scalar_type(), {-1, pattern.inputs, -1, -1});
  STD_TORCH_CHECK(grad.dim() == 4 && grad.size(0) == x.size(0), op, ": grad must be [B, O, OH, OW] with x's batch");
  return backward(op, values, pattern, rows.numel(), &x, grad, x.size(2), x.size(3), g);
}

}  // namespace
}  // namespace sparseprune

STABLE_TORCH_LIBRARY_IMPL(sparseprune, CPU, m) {
  m.impl("spconv_nchw", TORCH_BOX(&sparseprune::spconv_nchw_cpu));
  m.impl("spconv_nchw_dx", TORCH_BOX(&sparseprune::spconv_nchw_dx_cpu));
  m.impl("spconv_nchw_dw", TORCH_BOX(&sparseprune::spconv_nchw_dw_cpu));
  m.impl("spconv_nchw_backward", TORCH_BOX(&sparseprune::spconv_nchw_backward_cpu));
}
