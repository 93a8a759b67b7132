#include "cpu/conv_entries.h"

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <utility>

namespace sparseprune {
namespace {

constexpr int64_t GRAIN = 1 << 14;  // entries that pay for a thread

// What a place in the weight means for the walk, without its row: the key of its bucket, and its offset.
struct Place {
  int64_t key, offset;
};

// The part of a place that an other channel determines.
Place of_channel(int64_t channel, int64_t rows, const ConvPlan& plan) {
  return {channel / plan.panel() * rows * plan.taps(), channel * plan.other_plane()};
}

class OfOutput {
 public:
  OfOutput(const ByOutput& pattern, const ConvPlan& plan)
      : p_(pattern), group_(pattern.outputs / pattern.groups), columns_(pattern.input_channels / pattern.groups * plan.taps()) {
    places_.reserve(p_.input_channels * plan.taps());
    for (int64_t c = 0; c < p_.input_channels; ++c) {
      const Place channel = of_channel(c, p_.outputs, plan);
      for (int64_t t = 0; t < plan.taps(); ++t) {
        places_.push_back({channel.key + plan.rank(t), channel.offset + plan.shift(t)});
      }
    }
  }
  int64_t rows() const { return p_.outputs; }
  int64_t before(int64_t row) const { return p_.offsets[row]; }

  template <class F>
  void each(int64_t row, const F& f) const {
    const Place* places = places_.data() + row / group_ * columns_;
    for (int32_t j = p_.offsets[row], end = p_.offsets[row + 1]; j < end; ++j) f(places[p_.columns[j]], j);
  }

 private:
  ByOutput p_;
  int64_t group_, columns_;  // outputs and columns of a group
  std::vector<Place> places_;
};

class OfInput {
 public:
  OfInput(const ByInput& pattern, const ConvPlan& plan) : p_(pattern) {
    for (int64_t c = 0; c < plan.other_channels(); ++c) channels_.push_back(of_channel(c, p_.inputs, plan));
    for (int64_t t = 0; t < plan.taps(); ++t) taps_.push_back({plan.rank(t), plan.shift(t)});
  }
  int64_t rows() const { return p_.inputs; }
  int64_t before(int64_t row) const { return p_.offsets[row * static_cast<int64_t>(taps_.size())]; }

  template <class F>
  void each(int64_t row, const F& f) const {
    const int32_t* begin = p_.offsets + row * static_cast<int64_t>(taps_.size());
    for (size_t t = 0; t < taps_.size(); ++t) {
      for (int32_t j = begin[t]; j < begin[t + 1]; ++j) {
        const Place& channel = channels_[p_.rows[j]];
        f(Place{channel.key + taps_[t].key, channel.offset + taps_[t].offset}, p_.order[j]);
      }
    }
  }

 private:
  ByInput p_;
  std::vector<Place> channels_, taps_;
};

// A counting sort, which keeps the order of the channels.
template <class Pattern>
void arrange(const Pattern& pattern, const ConvPlan& plan, ConvEntries& entries) {
  const int64_t rows = pattern.rows(), size = pattern.before(rows), taps = plan.taps();
  entries.rows = rows, entries.taps = taps, entries.panels = plan.panels();
  for (int64_t row = 0; row <= rows; ++row) {
    entries.row_begin.push_back(pattern.before(row));
    if (row > 0) entries.longest = std::max(entries.longest, entries.row_begin[row] - entries.row_begin[row - 1]);
  }
  entries.begin.assign(entries.panels * rows * taps + 1, 0);
  entries.offset = std::make_unique<int64_t[]>(size + AHEAD);
  entries.place = std::make_unique_for_overwrite<int32_t[]>(size);
  const int64_t grain = std::max<int64_t>(GRAIN * rows / std::max<int64_t>(size, 1), 1);
  torch::stable::parallel_for(0, rows, grain, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      int32_t* const count = entries.begin.data() + row * taps + 1;
      pattern.each(row, [&](const Place& p, int32_t) { ++count[p.key]; });
    }
  });
  for (int32_t total = 0; int32_t& b : entries.begin) total += std::exchange(b, total);
  torch::stable::parallel_for(0, rows, grain, [&](int64_t first, int64_t last) {
    int64_t* const offset = entries.offset.get();
    int32_t* const place = entries.place.get();
    for (int64_t row = first; row < last; ++row) {
      int32_t* const next = entries.begin.data() + row * taps + 1;  // the beginnings of the next keys in the end
      pattern.each(row, [&](const Place& p, int32_t j) {
        const int32_t at = next[p.key]++;
        offset[at] = p.offset;
        place[at] = j;
      });
    }
  });
}

}  // namespace

ConvEntries::ConvEntries(const ByOutput& pattern, const ConvPlan& plan) { arrange(OfOutput(pattern, plan), plan, *this); }
ConvEntries::ConvEntries(const ByInput& pattern, const ConvPlan& plan) { arrange(OfInput(pattern, plan), plan, *this); }

}  // namespace sparseprune
