// Online gradient descent of small students on teachers: runs side by side, inputs drawn where they are used.
#include "cpu/online_sgd.h"

#include <cmath>
#include <tuple>

#include "philox.h"

#define KERNELS "cpu/online_sgd_kernels.h"
#include "each_isa.h"

namespace sparseprune {
namespace {

constexpr int64_t MOST_SAMPLES = int64_t{1} << 32;  // a sample's number is a counter word

Tensor checked(const char* name, const Tensor& t, ScalarType type, std::initializer_list<int64_t> shape) {
  STD_TORCH_CHECK(t.dim() == static_cast<int64_t>(shape.size()) && t.scalar_type() == type, "online_sgd: ", name,
                  " must have ", shape.size(), " dimensions and the dtype of w");
  int64_t d = 0;
  for (const int64_t size : shape) {
    STD_TORCH_CHECK(size < 0 || t.size(d) == size, "online_sgd: ", name, " must have size ", size, " in dimension ", d,
                    ", got ", t.size(d));
    ++d;
  }
  return torch::stable::contiguous(t);
}

template <class T>
SgdRun<T> gathered(int64_t s, const Tensor& w, const Tensor& v, const Tensor& w_star, const Tensor& v_star) {
  const int64_t students = w.size(1), teachers = w_star.size(1), units = students + teachers, n = w.size(2);
  const int64_t stride = (n + SGD_WIDE - 1) / SGD_WIDE * SGD_WIDE, rows = (units + SGD_ROWS - 1) / SGD_ROWS * SGD_ROWS;
  SgdRun<T> run{lines<T>(rows * stride), lines<T>(units), students, units, n, stride};
  std::fill_n(run.w.get(), rows * stride, T(0));
  for (int64_t k = 0; k < units; ++k) {
    const bool own = k < students;
    const int64_t at = own ? s * students + k : s * teachers + k - students;
    std::copy_n(data<T>(own ? w : w_star) + at * n, n, run.w.get() + k * stride);
    run.v[k] = data<T>(own ? v : v_star)[at];
  }
  return run;
}

std::tuple<Tensor, Tensor> online_sgd_cpu(Tensor w, Tensor v, Tensor w_star, Tensor v_star, int64_t first, int64_t samples,
                                          double eta, double sigma, int64_t seed, int64_t stream) {
  const ScalarType type = w.scalar_type();
  STD_TORCH_CHECK(type == ScalarType::Float || type == ScalarType::Double, "online_sgd: w must be float32 or float64");
  STD_TORCH_CHECK(first >= 0 && samples >= 0 && first <= MOST_SAMPLES - samples,
                  "online_sgd: first and samples must be within 0 and ", MOST_SAMPLES, ", got ", first, " and ", samples);
  w = checked("w", w, type, {-1, -1, -1});
  const int64_t runs = w.size(0), students = w.size(1), n = w.size(2);
  v = checked("v", v, type, {runs, students});
  w_star = checked("w_star", w_star, type, {runs, -1, n});
  v_star = checked("v_star", v_star, type, {runs, w_star.size(1)});
  Tensor new_w = torch::stable::new_empty(w, {runs, students, n}), new_v = torch::stable::new_empty(v, {runs, students});
  const auto train = [&]<class T>() {
    torch::stable::parallel_for(0, runs, 1, [&](int64_t begin, int64_t end) {
      for (int64_t s = begin; s < end; ++s) {
        SgdRun<T> run = gathered<T>(s, w, v, w_star, v_star);
        const SgdData from{eta, sigma, static_cast<uint64_t>(seed), static_cast<uint32_t>(stream + s)};
        ON_ISA(online_sgd<T>(run, from, first, samples));
        auto *const to_w = static_cast<T*>(new_w.data_ptr()), *const to_v = static_cast<T*>(new_v.data_ptr());
        for (int64_t k = 0; k < students; ++k) {
          std::copy_n(run.w.get() + k * run.stride, n, to_w + (s * students + k) * n);
        }
        std::copy_n(run.v.get(), students, to_v + s * students);
      }
    });
  };
  if (type == ScalarType::Float) train.template operator()<float>();
  else train.template operator()<double>();
  return {new_w, new_v};
}

}  // namespace
}  // namespace sparseprune

STABLE_TORCH_LIBRARY_IMPL(sparseprune, CPU, m) { m.impl("online_sgd", TORCH_BOX(&sparseprune::online_sgd_cpu)); }
