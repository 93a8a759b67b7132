#include "cpu/conv_plan.h"

#include <torch/headeronly/util/Exception.h>

#include <algorithm>
#include <utility>

namespace sparseprune {
namespace {

constexpr int64_t MOST_PANELS = 8;

// Measured on a core with 2 MB of second cache: what of it is free, what a run of lines costs to begin, in bytes; and ns: a
// line from beyond it, a line for each byte that lies in it, another load and store of a line.
constexpr double CACHE = 1.8e6, RUN = 4096, FETCH = 2.2, FARTHER = 1e-7, PANEL = 1.5;

int64_t floor_divide(int64_t a, int64_t b) { return a / b - (a % b < 0); }
int64_t ceil_divide(int64_t a, int64_t b) { return -floor_divide(-a, b); }

// Cuts [own, own + length) into wide stretches, the rest into narrow ones.
void cut_stretch(int64_t own, int64_t other, int64_t length, int wide, int narrow, Patch& patch) {
  for (; length >= wide; length -= wide, own += wide, other += wide) patch.wide.push_back({own, other, wide});
  for (; length > 0; length -= narrow, own += narrow, other += narrow) {
    patch.narrow.push_back({own, other, static_cast<int>(std::min<int64_t>(length, narrow))});
  }
}

}  // namespace

Geometry::Geometry(const std::vector<int64_t>& n) {
  STD_TORCH_CHECK(n.size() == 11, "geometry must be 11 integers, got ", n.size());
  for (int i = 0; i < 2; ++i) {
    kernel[i] = n[i], stride[i] = n[2 + i], before[i] = n[4 + 2 * i], after[i] = n[5 + 2 * i], dilation[i] = n[8 + i];
    STD_TORCH_CHECK(kernel[i] > 0 && stride[i] > 0 && dilation[i] > 0 && before[i] >= 0 && after[i] >= 0,
                    "kernel, stride and dilation must be positive, padding not negative");
  }
  groups = n[10];
  STD_TORCH_CHECK(groups > 0, "groups must be positive, got ", groups);
}

int64_t Geometry::output(int axis, int64_t input) const {
  const int64_t room = input + before[axis] + after[axis] - dilation[axis] * (kernel[axis] - 1) - 1;
  const int64_t size = floor_divide(room, stride[axis]) + 1;
  STD_TORCH_CHECK(size >= 0, "the kernel is larger than the padded image");
  return size;
}

Axis Axis::forward(const Geometry& g, int axis, int64_t input, int64_t output) {
  Axis a{output, input, 1, g.stride[axis], {}, {}, {}, {}, {}};
  for (int64_t k = 0; k < g.kernel[axis]; ++k) {
    a.phase.push_back(0);
    a.shift.push_back(k * g.dilation[axis] - g.before[axis]);
  }
  a.finish();
  return a;
}

Axis Axis::backward(const Geometry& g, int axis, int64_t input, int64_t output) {
  Axis a{input, output, g.stride[axis], 1, {}, {}, {}, {}, {}};
  for (int64_t k = 0; k < g.kernel[axis]; ++k) {
    const int64_t back = g.before[axis] - k * g.dilation[axis];  // pixel p meets the output pixel (p + back) / stride
    const int64_t phase = -back - floor_divide(-back, a.own_step) * a.own_step;
    a.phase.push_back(phase);
    a.shift.push_back((phase + back) / a.own_step);
  }
  a.finish();
  return a;
}

// Ranks and segments, from the taps' phases and shifts.
void Axis::finish() {
  const auto taps = static_cast<int64_t>(shift.size());
  rank.resize(taps);
  for (int64_t p = 0, ranked = 0; p < own_step; ++p) {
    phase_begin.push_back(ranked);
    const int64_t count = own > p ? ceil_divide(own - p, own_step) : 0;
    std::vector<int64_t> cuts{0, count};
    std::vector<std::pair<int64_t, int64_t>> reach;
    for (int64_t k = 0; k < taps; ++k) {
      if (phase[k] != p) continue;
      rank[k] = ranked++ - phase_begin[p];
      const int64_t begin = std::clamp<int64_t>(ceil_divide(-shift[k], step), 0, count);
      reach.emplace_back(begin, std::clamp<int64_t>(ceil_divide(other - shift[k], step), begin, count));
      cuts.insert(cuts.end(), {reach.back().first, reach.back().second});
    }
    std::sort(cuts.begin(), cuts.end());
    for (size_t i = 1; i < cuts.size(); ++i) {
      if (cuts[i - 1] == cuts[i]) continue;
      Segment s{p, cuts[i - 1], cuts[i], 0, 0};
      for (size_t r = 0; r < reach.size(); ++r) {
        if (reach[r].first > s.begin || reach[r].second < s.end) continue;
        if (s.high == 0) s.low = static_cast<int64_t>(r);
        s.high = static_cast<int64_t>(r) + 1;
      }
      segments.push_back(s);
    }
  }
  phase_begin.push_back(taps);
}

int64_t Axis::reach(int64_t count) const {
  const auto [least, most] = std::minmax_element(shift.begin(), shift.end());
  return std::min((count - 1) * step + *most - *least + 1, other);
}

Axis::Segment Axis::within(const Segment& s, int64_t begin, int64_t end) const {
  return {s.phase, std::max(s.begin, ceil_divide(begin - s.phase, own_step)),
          std::min(s.end, ceil_divide(end - s.phase, own_step)), s.low, s.high};
}

ConvPlan::ConvPlan(Axis rows, Axis columns, int64_t batch, const Load& load)
    : rows_(std::move(rows)),
      columns_(std::move(columns)),
      batch_(batch),
      other_channels_(load.other_channels),
      panel_(std::max<int64_t>(load.other_channels, 1)) {
  if (rows_.own == 0 || columns_.own == 0 || batch_ == 0) return;
  const Cut cut = best_cut(load);
  panels_ = cut.panels;
  panel_ = ceil_divide(panel_, panels_);
  const int64_t height = cut.height * rows_.own_step, width = cut.width * columns_.own_step;
  for (int64_t i = 0; i < rows_.own; i += height) {
    for (int64_t j = 0; j < columns_.own; j += width) {
      strips_.push_back({i, std::min(rows_.own, i + height), j, std::min(columns_.own, j + width)});
    }
  }
}

// ns for a line of an own pixel beyond what any cut costs. Strips are done from left to right, row after row: what of its
// neighbours' part of other is still there is not fetched again; what does not fit is fetched at every use.
double ConvPlan::cost(const Cut& cut, const Load& load) const {
  const auto pixel = static_cast<double>(batch_ * load.element_bytes), channels = static_cast<double>(load.other_channels);
  const auto rows = static_cast<double>(rows_.reach(cut.height)), columns = static_cast<double>(columns_.reach(cut.width));
  const auto panels = static_cast<double>(cut.panels), entries = static_cast<double>(load.entries);
  const bool once = cut.height * rows_.own_step >= rows_.own && cut.width * columns_.own_step >= columns_.own;
  const double list = once ? 0 : 12 * entries, all = rows * columns * pixel * channels + list, used = all / panels;
  const bool above = rows * static_cast<double>(columns_.other) * pixel * channels + list < CACHE, beside = all < CACHE;
  const double new_rows = above ? std::min(rows, static_cast<double>(cut.height * rows_.step)) : rows;
  const double new_columns = beside ? std::min(columns, static_cast<double>(cut.width * columns_.step)) : columns;
  const double own = static_cast<double>(cut.height * cut.width) * pixel;
  const double fetched = new_rows * (new_columns * pixel + RUN) * channels / own;
  const double again = entries * std::max(1 - CACHE / used, 0.0), near = entries * std::min(used, CACHE);
  const auto spilled = static_cast<double>(load.own_channels * rows_.own_step * columns_.own_step) * (panels - 1);
  return FETCH * (fetched + again) + FARTHER * near + PANEL * spilled;
}

ConvPlan::Cut ConvPlan::best_cut(const Load& load) const {
  const int64_t height = ceil_divide(rows_.own, rows_.own_step), width = ceil_divide(columns_.own, columns_.own_step);
  Cut best{1, height, width};
  double least = cost(best, load);
  for (int64_t p = 1; p <= (load.panels ? MOST_PANELS : 1); p *= 2) {
    for (int64_t n = 1; n < 2 * height; n *= 2) {
      for (int64_t w = width; w > 0; w /= 2) {
        const Cut cut{p, ceil_divide(height, n), w};
        const double c = cost(cut, load);
        if (c < least) least = c, best = cut;
      }
    }
  }
  return best;
}

int64_t ConvPlan::rank(int64_t tap) const {
  const auto width = static_cast<int64_t>(columns_.shift.size());
  const int64_t row = tap / width, column = tap % width, p = rows_.phase[row], q = columns_.phase[column];
  const int64_t above = rows_.phase_begin[p + 1] - rows_.phase_begin[p];
  const int64_t across = columns_.phase_begin[q + 1] - columns_.phase_begin[q];
  return rows_.phase_begin[p] * width + above * columns_.phase_begin[q] + rows_.rank[row] * across + columns_.rank[column];
}

int64_t ConvPlan::shift(int64_t tap) const {
  const auto width = static_cast<int64_t>(columns_.shift.size());
  return (rows_.shift[tap / width] * columns_.other + columns_.shift[tap % width]) * batch_;
}

std::vector<std::pair<int64_t, int64_t>> ConvPlan::runs(const Axis::Segment& row, const Axis::Segment& column) const {
  const auto width = static_cast<int64_t>(columns_.shift.size());
  const int64_t above = rows_.phase_begin[row.phase + 1] - rows_.phase_begin[row.phase];
  const int64_t across = columns_.phase_begin[column.phase + 1] - columns_.phase_begin[column.phase];
  const int64_t first = rows_.phase_begin[row.phase] * width + above * columns_.phase_begin[column.phase];
  std::vector<std::pair<int64_t, int64_t>> result;
  if (column.low == column.high) return result;
  for (int64_t r = row.low; r < row.high; ++r) {
    const int64_t begin = first + r * across + column.low, end = first + r * across + column.high;
    if (!result.empty() && result.back().second == begin) result.back().second = end;
    else result.emplace_back(begin, end);
  }
  return result;
}

std::vector<Patch> ConvPlan::patches(const Strip& strip, int wide, int narrow) const {
  const bool joined = columns_.own_step == 1 && columns_.step == 1;  // a row is one stretch
  std::vector<Patch> result;
  for (const Axis::Segment& row : rows_.segments) {
    const Axis::Segment rows = rows_.within(row, strip.row_begin, strip.row_end);
    if (rows.begin >= rows.end) continue;
    for (const Axis::Segment& column : columns_.segments) {
      const Axis::Segment columns = columns_.within(column, strip.column_begin, strip.column_end);
      if (columns.begin >= columns.end) continue;
      Patch patch{runs(row, column), {}, {}};
      for (int64_t r = rows.begin; r < rows.end; ++r) {
        const int64_t own = (row.phase + rows_.own_step * r) * columns_.own + column.phase;
        const int64_t other = rows_.step * r * columns_.other;
        for (int64_t c = columns.begin; c < columns.end; c += joined ? columns.end : 1) {
          cut_stretch((own + columns_.own_step * c) * batch_, (other + columns_.step * c) * batch_,
                      joined ? (columns.end - c) * batch_ : batch_, wide, narrow, patch);
        }
      }
      result.push_back(std::move(patch));
    }
  }
  return result;
}

}  // namespace sparseprune
