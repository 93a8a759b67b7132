// The kept entries of a convolution's weight in the order in which the kernels walk them: by panel of other channels, own
// channel, rank of the tap, other channel; each with the offset of what it is multiplied with.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "cpu/conv_plan.h"

namespace sparseprune {

// Where the entries are listed: by output channel (own = outputs), or by input channel and tap (own = inputs).
struct ByOutput {
  const int32_t *offsets, *columns;
  int64_t outputs, groups, input_channels;
};
struct ByInput {
  const int32_t *offsets, *rows, *order;
  int64_t inputs;
};

constexpr int AHEAD = 2;  // the walk fetches the pixel of the entry after the next

class ConvEntries {
 public:
  ConvEntries(const ByOutput& pattern, const ConvPlan& plan);
  ConvEntries(const ByInput& pattern, const ConvPlan& plan);

  int64_t rows, taps, panels, longest = 0;  // the most entries of a row
  std::vector<int64_t> row_begin;      // how many entries the rows before have; one more at the end
  std::vector<int32_t> begin;          // where the entries of (panel, row, rank) begin; one more at the end
  std::unique_ptr<int64_t[]> offset;   // of the other pixel from that of shift 0 in other channel 0; AHEAD zeros follow
  std::unique_ptr<int32_t[]> place;    // in `values`

  int64_t size() const { return begin.back(); }
};

}  // namespace sparseprune
