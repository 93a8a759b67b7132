// The kept entries of a convolution's weight in the order in which the kernels walk them: by part of the own channels,
// phase, panel of other channels, and segment; each with the place of what it is multiplied with.
#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "cpu/conv_entries.h"
#include "cpu/flat_plan.h"

namespace sparseprune {

// The entries of an own channel in a panel. Of its segments in a phase one is the first, one the last.
struct Segment {
  int32_t row, begin, count;
  bool first, last;
};

// The entries by output channel: own = outputs.
class FlatByOutput {
 public:
  FlatByOutput(const ByOutput& pattern, const FlatPlan& plan) : rows(pattern.outputs), p_(pattern) {
    for (int64_t c = 0; c < p_.input_channels; ++c) {
      for (int64_t t = 0; t < plan.taps(); ++t) places_.push_back(plan.place(t) + plan.place_of_channel(c));
    }
  }
  const int64_t rows;
  int64_t before(int64_t row) const { return p_.offsets[row]; }
  // f(place, where in `values`) of a row's entries.
  template <class F>
  void each(int64_t row, const F& f) const {
    const auto group = static_cast<int64_t>(places_.size()) / p_.groups;
    const FlatPlace* const places = places_.data() + row / (rows / p_.groups) * group;
    for (int32_t j = p_.offsets[row], end = p_.offsets[row + 1]; j < end; ++j) f(places[p_.columns[j]], j);
  }

 private:
  ByOutput p_;
  std::vector<FlatPlace> places_;
};

// The entries by input channel and tap: own = inputs.
class FlatByInput {
 public:
  FlatByInput(const ByInput& pattern, const FlatPlan& plan, int64_t channels) : rows(pattern.inputs), p_(pattern) {
    for (int64_t c = 0; c < channels; ++c) channels_.push_back(plan.place_of_channel(c));
    for (int64_t t = 0; t < plan.taps(); ++t) taps_.push_back(plan.place(t));
  }
  const int64_t rows;
  int64_t before(int64_t row) const { return p_.offsets[row * static_cast<int64_t>(taps_.size())]; }
  template <class F>
  void each(int64_t row, const F& f) const {
    const int32_t* o = p_.offsets + row * static_cast<int64_t>(taps_.size());
    for (size_t t = 0; t < taps_.size(); ++t) {
      for (int32_t j = o[t]; j < o[t + 1]; ++j) f(taps_[t] + channels_[p_.rows[j]], p_.order[j]);
    }
  }

 private:
  ByInput p_;
  std::vector<FlatPlace> channels_, taps_;
};

class FlatEntries {
 public:
  int64_t rows, phases, panels, parts, size;
  std::vector<int64_t> part_begin, entry_begin;  // of a part: its first own channel and entry; one more at the end
  std::unique_ptr<int32_t[]> offset;             // numbers, from an own pixel of the copy

  // In `n` parts of equal cost; keep(at, j): entry `at` of the walk is values[j].
  template <class Pattern, class F>
  FlatEntries(const Pattern& pattern, const FlatPlan& plan, int64_t n, const F& keep);

  // By count: a loop over as many entries as the last one is not mispredicted.
  const std::vector<Segment>& segments(int64_t part, int64_t phase, int64_t panel) const {
    return segments_[(part * phases + phase) * panels + panel];
  }

 private:
  int64_t buckets() const { return phases * panels; }
  template <class Pattern>
  void divide(const Pattern& pattern);
  void list(int64_t part, int64_t bucket);
  void place();

  std::vector<int32_t> next_;         // by row and bucket: how many entries, then where the next one goes
  std::vector<int32_t> first_, last_;  // by row and phase: the panels of its first and last segment
  std::vector<std::vector<Segment>> segments_;
};

template <class Pattern, class F>
FlatEntries::FlatEntries(const Pattern& pattern, const FlatPlan& plan, int64_t n, const F& keep)
    : rows(pattern.rows), phases(plan.phases()), panels(plan.panels()), parts(n), size(pattern.before(rows)) {
  divide(pattern);
  offset = std::make_unique_for_overwrite<int32_t[]>(size);
  next_.assign(rows * buckets(), 0);
  first_.assign(rows * phases, 0);
  last_.assign(rows * phases, 0);
  constexpr int64_t GRAIN = 1 << 14;  // entries that pay for a thread
  const int64_t grain = std::max<int64_t>(GRAIN * rows / std::max<int64_t>(size, 1), 1);
  torch::stable::parallel_for(0, rows, grain, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      int32_t* const count = next_.data() + row * buckets();
      pattern.each(row, [&](const FlatPlace& p, int32_t) { ++count[p.bucket]; });
      for (int64_t phase = 0; phase < phases; ++phase) {
        const int32_t* const in = count + phase * panels;
        int64_t first = 0, last = panels - 1;
        while (last > 0 && in[last] == 0) --last;
        while (first < last && in[first] == 0) ++first;
        first_[row * phases + phase] = static_cast<int32_t>(first);
        last_[row * phases + phase] = static_cast<int32_t>(last);
      }
    }
  });
  segments_.resize(parts * buckets());
  const int64_t lists = parts * buckets(), few = std::max<int64_t>(GRAIN * lists / (size + 1), 1);
  torch::stable::parallel_for(0, lists, few, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) list(i / buckets(), i % buckets());
  });
  place();
  torch::stable::parallel_for(0, rows, grain, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      int32_t* const next = next_.data() + row * buckets();
      pattern.each(row, [&](const FlatPlace& p, int32_t j) {
        const int32_t at = next[p.bucket]++;
        offset[at] = p.offset;
        keep(at, j);
      });
    }
  });
}

template <class Pattern>
void FlatEntries::divide(const Pattern& pattern) {
  constexpr int64_t ROW_COST = 4;  // in entries
  const int64_t all = size + ROW_COST * rows;
  part_begin.push_back(0);
  for (int64_t row = 0; row < rows; ++row) {
    const auto begun = static_cast<int64_t>(part_begin.size());
    if (begun < parts && (pattern.before(row) + ROW_COST * row) * parts >= all * begun) part_begin.push_back(row);
  }
  part_begin.resize(parts + 1, rows);
  part_begin.back() = rows;
  for (const int64_t row : part_begin) entry_begin.push_back(pattern.before(row));
}

// The segments of a part's rows in a bucket, by count. An empty row has one in a phase, in which its output is written.
inline void FlatEntries::list(int64_t part, int64_t bucket) {
  const int64_t phase = bucket / panels, panel = bucket % panels;
  std::vector<Segment> found;
  std::vector<int32_t> at;
  for (int64_t row = part_begin[part]; row < part_begin[part + 1]; ++row) {
    const bool first = first_[row * phases + phase] == panel, last = last_[row * phases + phase] == panel;
    const int32_t n = next_[row * buckets() + bucket];
    if (n == 0 && !first && !last) continue;
    if (at.size() < static_cast<size_t>(n) + 2) at.resize(n + 2, 0);
    ++at[n + 1];
    found.push_back({static_cast<int32_t>(row), 0, n, first, last});
  }
  for (size_t n = 1; n < at.size(); ++n) at[n] += at[n - 1];
  std::vector<Segment>& sorted = segments_[part * buckets() + bucket];
  sorted.resize(found.size());
  for (const Segment& s : found) sorted[at[s.count]++] = s;
}

// Where the entries of the segments begin.
inline void FlatEntries::place() {
  int32_t begin = 0;
  for (std::vector<Segment>& list : segments_) {
    const int64_t bucket = (&list - segments_.data()) % buckets();
    for (Segment& s : list) {
      s.begin = begin;
      next_[s.row * buckets() + bucket] = begin;
      begin += s.count;
    }
  }
}

}  // namespace sparseprune
