// A list of tensors as one logical vector in tiles of 4096 elements: reading scores, writing results.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "portable.h"

namespace sparseprune {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

constexpr int TILE = 4096;
enum Transform : int64_t { GIVEN, ABS, SQUARE };
enum Output : int64_t { M, COUNTS, WEIGHTS, BOOL };

struct Array {
  void* data = nullptr;
  ScalarType type = ScalarType::Float;

  Array() = default;
  explicit Array(const Tensor& t) : data(t.data_ptr()), type(t.scalar_type()) {}
};

struct Piece {
  int64_t begin, end;  // in the logical vector
  Array score, factor, weight, out;
  int64_t period;  // elements of the factor, which repeats
};

class Vector {
 public:
  Vector(const std::vector<Tensor>& scores, const std::vector<Tensor>& factors, int64_t transform,
         const std::vector<Tensor>& weights = {}, const std::vector<Tensor>& out = {});

  int64_t tiles() const { return (numel_ + TILE - 1) / TILE; }
  // Elements of tile b; the rest of its TILE places are absent.
  int count(int64_t b) const { return static_cast<int>(std::min<int64_t>(TILE, numel_ - b * TILE)); }
  // Whether fp32 holds every transformed score exactly.
  bool fits_float() const { return float_; }
  // v[0 ... TILE) = the transformed scores of tile b, -0 as 0, absent elements 0. V: double, or float where that fits.
  template <class V>
  void load(int64_t b, V* v) const;
  // Write tile b: m (or w m) from `m`, or counts or count > 0 from `counts`.
  void store(int64_t b, Output output, const double* m, const int32_t* counts) const;
  // The same where m is fp32 already: no score is fp64.
  void store(int64_t b, Output output, const float* m, const int32_t* counts) const;
  // Write tile b: w keep, or keep as bool.
  void store_marks(int64_t b, bool weights, const uint8_t* keep) const;

 private:
  size_t first_piece(int64_t element) const;
  void store_part(const Piece& p, int64_t offset, int n, Output output, const double* m, const int32_t* counts) const;
  template <class F>
  void for_each_part(int64_t b, const F& f) const;

  std::vector<Piece> pieces_;
  int64_t transform_;
  bool float_;
  int64_t numel_ = 0;
};

// The numbers of local tiles in the one global vector, by which random numbers are named; without ids their own.
class TileNumbers {
 public:
  explicit TileNumbers(const Tensor& ids)
      : ids_(ids.numel() > 0 ? static_cast<const int64_t*>(ids.data_ptr()) : nullptr) {}
  int64_t operator[](int64_t b) const { return ids_ == nullptr ? b : ids_[b]; }

 private:
  const int64_t* ids_;
};

// f(b, scratch) for every tile, spread over torch's threads, each with a Scratch of its own and exact subnormals.
template <class Scratch, class F>
void for_each_tile(int64_t tiles, const F& f) {
  torch::stable::parallel_for(0, tiles, 4, [&](int64_t begin, int64_t end) {
    const ExactSubnormals exact;
    const std::unique_ptr<Scratch> scratch(new Scratch);  // what it does not initialise itself is not touched here
    for (int64_t b = begin; b < end; ++b) f(b, *scratch);
  });
}

}  // namespace sparseprune
