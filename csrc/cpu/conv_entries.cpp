#include "cpu/conv_entries.h"

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <utility>

namespace sparseprune {
namespace {

constexpr int64_t GRAIN = 1 << 14;  // entries that pay for a thread

struct Entry {
  int64_t rank, channel, offset, place;
};

class OfOutput {
 public:
  OfOutput(const ByOutput& pattern, const ConvPlan& plan) : p_(pattern), plane_(plan.other_plane()) {
    const int64_t taps = plan.taps(), channels = p_.input_channels / p_.groups;
    columns_.reserve(channels * taps);
    for (int64_t c = 0; c < channels; ++c) {
      for (int64_t t = 0; t < taps; ++t) columns_.push_back({plan.rank(t), c, c * plane_ + plan.shift(t), 0});
    }
  }
  int64_t rows() const { return p_.outputs; }
  int64_t before(int64_t row) const { return p_.offsets[row]; }

  template <class F>
  void each(int64_t row, const F& f) const {
    const int64_t first = row / (p_.outputs / p_.groups) * (p_.input_channels / p_.groups);
    for (int32_t j = p_.offsets[row]; j < p_.offsets[row + 1]; ++j) {
      const Entry& e = columns_[p_.columns[j]];
      f(Entry{e.rank, first + e.channel, first * plane_ + e.offset, j});
    }
  }

 private:
  ByOutput p_;
  int64_t plane_;
  std::vector<Entry> columns_;  // of the first group
};

class OfInput {
 public:
  OfInput(const ByInput& pattern, const ConvPlan& plan) : p_(pattern), plane_(plan.other_plane()) {
    for (int64_t t = 0; t < plan.taps(); ++t) taps_.push_back({plan.rank(t), 0, plan.shift(t), 0});
  }
  int64_t rows() const { return p_.inputs; }
  int64_t before(int64_t row) const { return p_.offsets[row * static_cast<int64_t>(taps_.size())]; }

  template <class F>
  void each(int64_t row, const F& f) const {
    const int32_t* begin = p_.offsets + row * static_cast<int64_t>(taps_.size());
    for (size_t t = 0; t < taps_.size(); ++t) {
      for (int32_t j = begin[t]; j < begin[t + 1]; ++j) {
        f(Entry{taps_[t].rank, p_.rows[j], p_.rows[j] * plane_ + taps_[t].offset, p_.order[j]});
      }
    }
  }

 private:
  ByInput p_;
  int64_t plane_;
  std::vector<Entry> taps_;
};

// A counting sort, which keeps the order of the channels.
template <class Pattern>
void arrange(const Pattern& pattern, const ConvPlan& plan, ConvEntries& entries) {
  const int64_t rows = pattern.rows(), size = pattern.before(rows), taps = plan.taps(), panel = plan.panel();
  const int64_t panels = plan.panels();
  entries.rows = rows, entries.taps = taps, entries.panels = panels;
  for (int64_t row = 0; row <= rows; ++row) {
    entries.row_begin.push_back(pattern.before(row));
    if (row > 0) entries.longest = std::max(entries.longest, entries.row_begin[row] - entries.row_begin[row - 1]);
  }
  entries.begin.assign(panels * rows * taps + 1, 0);
  entries.offset = std::make_unique_for_overwrite<int64_t[]>(size);
  entries.place = std::make_unique_for_overwrite<int32_t[]>(size);
  const auto key = [&](int64_t row, const Entry& e) {
    return ((panels == 1 ? 0 : e.channel / panel) * rows + row) * taps + e.rank;
  };
  const int64_t grain = std::max<int64_t>(GRAIN * rows / std::max<int64_t>(size, 1), 1);
  torch::stable::parallel_for(0, rows, grain, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      pattern.each(row, [&](const Entry& e) { ++entries.begin[key(row, e) + 1]; });
    }
  });
  for (int32_t total = 0; int32_t& b : entries.begin) total += std::exchange(b, total);
  torch::stable::parallel_for(0, rows, grain, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
      pattern.each(row, [&](const Entry& e) {
        const int32_t at = entries.begin[key(row, e) + 1]++;  // the beginning of the next key in the end
        entries.offset[at] = e.offset;
        entries.place[at] = static_cast<int32_t>(e.place);
      });
    }
  });
}

}  // namespace

ConvEntries::ConvEntries(const ByOutput& pattern, const ConvPlan& plan) { arrange(OfOutput(pattern, plan), plan, *this); }
ConvEntries::ConvEntries(const ByInput& pattern, const ConvPlan& plan) { arrange(OfInput(pattern, plan), plan, *this); }

}  // namespace sparseprune
