// Checked arguments of the convolutions.
#pragma once

#include <array>
#include <vector>

#include "cpu/conv_entries.h"
#include "products.h"

namespace sparseprune {

// Contiguous images of four dimensions; a size of -1: any.
inline Tensor images(const char* op, const char* name, const Tensor& t, ScalarType type,
                     const std::array<int64_t, 4>& wanted) {
  STD_TORCH_CHECK(t.dim() == 4 && t.scalar_type() == type, op, ": ", name,
                  " must have four dimensions and the others' dtype");
  for (int64_t i = 0; i < 4; ++i) {
    STD_TORCH_CHECK(wanted[i] < 0 || t.size(i) == wanted[i], op, ": ", name, " must have ", wanted[i], " along dimension ",
                    i, ", got ", t.size(i));
  }
  return torch::stable::contiguous(t);
}

inline void check_size(const char* op, const std::vector<int64_t>& size) {
  STD_TORCH_CHECK(size.size() == 2 && size[0] >= 0 && size[1] >= 0, op, ": size must be [H, W]");
}

// channels: of the input.
inline ByOutput by_output(const char* op, const Tensor& offsets, const Tensor& columns, int64_t channels,
                          const Geometry& g) {
  const Pattern p = pattern(op, offsets, columns, std::nullopt);
  STD_TORCH_CHECK(p.rows % g.groups == 0 && channels % g.groups == 0, op, ": channels must be a multiple of groups");
  return {p.offsets, p.indices, p.rows, g.groups, channels};
}

inline ByInput by_input(const char* op, const Tensor& offsets, const Tensor& rows, const Tensor& order, const Geometry& g) {
  const Pattern p = pattern(op, offsets, rows, order);
  STD_TORCH_CHECK(p.rows % g.taps() == 0, op, ": column_offsets must have C KH KW + 1 elements, got ", p.rows + 1);
  return {p.offsets, p.indices, p.order, p.rows / g.taps()};
}

}  // namespace sparseprune
