// The synaptic flow through a layer whose weights are many more than its places: each pass reads the weights once.
#include "cpu/flow.h"

#include <array>
#include <tuple>
#include <vector>

#include "lines.h"

#define KERNELS "cpu/flow_kernels.h"
#include "each_isa.h"

namespace sparseprune {
namespace {

const uint8_t* checked_mask(const char* op, const Tensor& weight, const std::optional<Tensor>& mask) {
  STD_TORCH_CHECK(weight.dim() == 2 && weight.is_contiguous(), op, ": weight must be a contiguous matrix");
  if (!mask) return nullptr;
  STD_TORCH_CHECK(mask->scalar_type() == ScalarType::Bool && mask->is_contiguous() && mask->dim() == 2 &&
                      mask->size(0) == weight.size(0) && mask->size(1) == weight.size(1),
                  op, ": mask must be bool, contiguous and of the shape of weight");
  return static_cast<const uint8_t*>(mask->data_ptr());
}

void check_power(const char* op, int64_t power) {
  STD_TORCH_CHECK(power == 1 || power == 2, op, ": power must be 1 or 2, got ", power);
}

template <class F>
void on_wide_type(const char* op, ScalarType type, const F& f) {
  if (type == ScalarType::Float) return f.template operator()<float>();
  STD_TORCH_CHECK(type == ScalarType::Double, op, ": weight must be float32 or float64");
  f.template operator()<double>();
}

Tensor flow_forward_cpu(Tensor weight, std::optional<Tensor> mask, Tensor x, int64_t power) {
  const uint8_t* kept = checked_mask("flow_forward", weight, mask);
  check_power("flow_forward", power);
  const ScalarType type = weight.scalar_type();
  x = matrix("flow_forward", "x", x, type, -1, weight.size(1));
  Tensor y = torch::stable::new_empty(weight, {weight.size(0), x.size(0)});
  on_wide_type("flow_forward", type, [&]<class T>() {
    const Flow<T> p{data<T>(weight), data<T>(x),         nullptr,   kept,      static_cast<T*>(y.data_ptr()), nullptr,
                    nullptr,         weight.size(0),     weight.size(1), x.size(0), power == 2,       false};
    torch::stable::parallel_for(0, (p.outputs + FLOW_ROWS - 1) / FLOW_ROWS, 1, [&](int64_t begin, int64_t end) {
      std::vector<std::array<T, FLOW_ROWS>> sums(p.places);
      auto* const sum = reinterpret_cast<T(*)[FLOW_ROWS]>(sums.data());
      for (int64_t b = begin; b < end; ++b) ON_ISA(flow_rows<T>(p, b * FLOW_ROWS, sum));
    });
  });
  return y;
}

// Chunks of inputs as wide as x and dx of all places fit the caches, and as many as the threads divide.
int64_t chunk_width(int64_t inputs, int64_t places) {
  const int64_t widest = std::clamp<int64_t>(8192 / std::max<int64_t>(1, places), 64, FLOW_CHUNK / 2);
  const int64_t threads = torch::stable::get_num_threads(), share = (inputs + threads - 1) / threads;
  const int64_t pieces = std::max<int64_t>(1, (share + widest - 1) / widest);
  return std::max<int64_t>(16, ((share + pieces - 1) / pieces + 15) / 16 * 16);
}

// Whether scores are too many for the caches, and each row begins at a cache line.
bool streamed(const Tensor& scores) {
  const auto begin = reinterpret_cast<uintptr_t>(scores.data_ptr());
  const uint64_t size = scores.scalar_type() == ScalarType::Float ? 4 : 8, bytes = scores.numel() * size;
  if (bytes < 4 << 20 || begin % 64 != 0 || scores.size(1) * size % 64 != 0) return false;
  return true;
}

std::tuple<Tensor, Tensor, Tensor> flow_backward_cpu(Tensor weight, std::optional<Tensor> mask, Tensor x, Tensor grad,
                                                     int64_t power) {
  const uint8_t* kept = checked_mask("flow_backward", weight, mask);
  check_power("flow_backward", power);
  const ScalarType type = weight.scalar_type();
  x = matrix("flow_backward", "x", x, type, -1, weight.size(1));
  grad = matrix("flow_backward", "grad", grad, type, weight.size(0), x.size(0));
  Tensor dx = torch::stable::new_empty(x, {x.size(0), x.size(1)});
  Tensor scores = torch::stable::new_empty(weight, {weight.size(0), weight.size(1)});
  Tensor bounds = torch::stable::new_zeros(weight, {2});
  on_wide_type("flow_backward", type, [&]<class T>() {
    const Flow<T> p{data<T>(weight), data<T>(x), data<T>(grad), kept, nullptr, static_cast<T*>(dx.data_ptr()),
                    static_cast<T*>(scores.data_ptr()), weight.size(0), weight.size(1), x.size(0), power == 2, streamed(scores)};
    const int64_t width = chunk_width(p.inputs, p.places), chunks = (p.inputs + width - 1) / width;
    std::vector<std::array<T, 2>> found(chunks, {T{0}, T{0}});
    torch::stable::parallel_for(0, chunks, 1, [&](int64_t begin, int64_t end) {
      const Lines<T> here = lines<T>(p.places * width), back = lines<T>(p.places * width);
      std::vector<std::array<T, FLOW_ROWS>> grads(p.places);
      auto* const rows = reinterpret_cast<T(*)[FLOW_ROWS]>(grads.data());
      for (int64_t c = begin; c < end; ++c) {
        const int64_t k = c * width, n = std::min(width, p.inputs - k);
        ON_ISA(flow_columns<T>(p, k, n, width, here.get(), back.get(), rows, found[c].data()));
      }
    });
    auto* const total = static_cast<T*>(bounds.data_ptr());
    for (const auto& [low, high] : found) {
      total[0] = std::min(total[0], low);
      total[1] = high > total[1] || high != high ? high : total[1];
    }
  });
  return {dx, scores, bounds};
}

}  // namespace
}  // namespace sparseprune

STABLE_TORCH_LIBRARY_IMPL(sparseprune, CPU, m) {
  m.impl("flow_forward", TORCH_BOX(&sparseprune::flow_forward_cpu));
  m.impl("flow_backward", TORCH_BOX(&sparseprune::flow_backward_cpu));
}
