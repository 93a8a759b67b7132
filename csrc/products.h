// Sparse products: checked arguments, the choice of a type, and how work is cut for threads.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <cstdint>
#include <optional>

#include "simd.h"

namespace sparseprune {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// The kept entries of a matrix, by rows: entry j of row i has column indices[j] and value values[order[j]], or values[j].
struct Pattern {
  const int32_t *offsets, *indices, *order;  // order: or null
  int64_t rows, entries;

  int32_t place(int32_t j) const { return order == nullptr ? j : order[j]; }
};

template <class T>
const T* data(const Tensor& t) {
  return static_cast<const T*>(t.data_ptr());
}

inline void check_int32(const char* op, const char* name, const Tensor& t) {
  STD_TORCH_CHECK(t.scalar_type() == ScalarType::Int && t.dim() == 1 && t.is_contiguous(), op, ": ", name,
                  " must be a contiguous int32 vector");
}

inline Pattern pattern(const char* op, const Tensor& offsets, const Tensor& indices, const std::optional<Tensor>& order) {
  check_int32(op, "offsets", offsets);
  check_int32(op, "indices", indices);
  STD_TORCH_CHECK(offsets.numel() > 0, op, ": offsets must have an element more than there are rows, got none");
  if (order) {
    check_int32(op, "order", *order);
    STD_TORCH_CHECK(order->numel() == indices.numel(), op, ": order must have ", indices.numel(),
                    " elements like indices, got ", order->numel());
  }
  return {data<int32_t>(offsets), data<int32_t>(indices), order ? data<int32_t>(*order) : nullptr, offsets.numel() - 1,
          indices.numel()};
}

// A contiguous matrix of the given type, with `rows` rows and as many columns as said, where these are not negative.
inline Tensor matrix(const char* op, const char* name, const Tensor& t, ScalarType type, int64_t rows, int64_t columns) {
  STD_TORCH_CHECK(t.dim() == 2 && t.scalar_type() == type, op, ": ", name, " must be a matrix of the others' dtype");
  STD_TORCH_CHECK(rows < 0 || t.size(0) == rows, op, ": ", name, " must have ", rows, " rows, got ", t.size(0));
  STD_TORCH_CHECK(columns < 0 || t.size(1) == columns, op, ": ", name, " must have ", columns, " columns, got ", t.size(1));
  return torch::stable::contiguous(t);
}

inline Tensor vector(const char* op, const char* name, const Tensor& t, ScalarType type, int64_t numel) {
  STD_TORCH_CHECK(t.dim() == 1 && t.scalar_type() == type && t.numel() == numel, op, ": ", name, " must be a vector of ",
                  numel, " elements of the others' dtype, got ", t.numel());
  return torch::stable::contiguous(t);
}

// f.template operator()<T>() for the type that `type` names.
template <class F>
void on_type(const char* op, ScalarType type, const F& f) {
  if (type == ScalarType::Float) return f.template operator()<float>();
  if (type == ScalarType::Double) return f.template operator()<double>();
  STD_TORCH_CHECK(type == ScalarType::BFloat16, op, ": the CPU takes float32, float64 and bfloat16");
  f.template operator()<BFloat16>();
}

// Threads that are worth starting for so many products of vectors: a start costs some microseconds.
inline int64_t threads_for(int64_t products) {
  return std::clamp<int64_t>(products / 16384, 1, torch::stable::get_num_threads());
}

// Of all that passes over a matrix [rows, batch] by tiles of columns, a tile should stay in the second cache.
constexpr int64_t SECOND_CACHE = 1 << 20, ROW_COST = 4;

// Whether copying a tile of `rows` rows pays: they lie apart (where a power of two falls on few cache sets), and are used
// `uses` times in all.
inline bool worth_packing(int64_t batch, int64_t width, int64_t rows, int64_t uses) {
  return batch > width && uses >= 4 * rows;
}

}  // namespace sparseprune
