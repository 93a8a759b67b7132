#include "conv_plan.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace sparseprune {
namespace {

static const int64_t CACHE = getenv("CC") ? atoll(getenv("CC")) : 3 << 19;  // bytes gathered from by a strip: below the 2 MB a core has of its second cache
constexpr int64_t BATCH = 64;       // columns of the batch that a strip of a large batch takes

int64_t floor_divide(int64_t a, int64_t b) { return a / b - (a % b < 0); }
int64_t ceil_divide(int64_t a, int64_t b) { return -floor_divide(-a, b); }

// Cuts [own, own + length) into wide stretches, the rest into narrow ones.
void cut_stretch(int64_t own, int64_t other, int64_t length, int wide, int narrow, Piece& piece) {
  for (; length >= wide; length -= wide, own += wide, other += wide) piece.wide.push_back({own, other, wide});
  for (; length > 0; length -= narrow, own += narrow, other += narrow) {
    piece.narrow.push_back({own, other, static_cast<int>(std::min<int64_t>(length, narrow))});
  }
}

}  // namespace

Geometry::Geometry(const std::vector<int64_t>& n) {
  if (n.size() != 11) throw std::runtime_error("sparseprune: geometry must be 11 integers");
  for (int i = 0; i < 2; ++i) {
    kernel[i] = n[i], stride[i] = n[2 + i], before[i] = n[4 + 2 * i], after[i] = n[5 + 2 * i], dilation[i] = n[8 + i];
    if (kernel[i] < 1 || stride[i] < 1 || dilation[i] < 1 || before[i] < 0 || after[i] < 0) {
      throw std::runtime_error("sparseprune: kernel, stride and dilation must be positive, padding not negative");
    }
  }
  groups = n[10];
  if (groups < 1) throw std::runtime_error("sparseprune: groups must be positive");
}

int64_t Geometry::output(int axis, int64_t input) const {
  const int64_t room = input + before[axis] + after[axis] - dilation[axis] * (kernel[axis] - 1) - 1;
  const int64_t size = floor_divide(room, stride[axis]) + 1;
  if (size < 0) throw std::runtime_error("sparseprune: the kernel is larger than the padded image");
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

ConvPlan::ConvPlan(Axis rows, Axis columns, int64_t other_channels, int64_t batch, int64_t element_bytes)
    : rows_(std::move(rows)), columns_(std::move(columns)), batch_(batch), panel_(std::max<int64_t>(other_channels, 1)) {
  cut(other_channels, element_bytes);
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

void ConvPlan::cut(int64_t other_channels, int64_t element_bytes) {
  if (getenv("PP")) {panels_=atoi(getenv("PP")); panel_=ceil_divide(other_channels,panels_);}
  if (rows_.own == 0 || columns_.own == 0 || batch_ == 0) return;
  const int64_t parts = std::max<int64_t>(batch_ / BATCH, 1), columns = parts > 1 ? BATCH : batch_;
  const int64_t row = std::max<int64_t>(other_channels * columns_.other * columns * element_bytes, 1);
  const auto [least, most] = std::minmax_element(rows_.shift.begin(), rows_.shift.end());
  const int64_t steps = (CACHE / row - (*most - *least + 1)) / rows_.step + 1;
  const int64_t height = std::max<int64_t>(steps, 1) * rows_.own_step;
  const int64_t count = ceil_divide(rows_.own, height);
  for (int64_t b = 0; b < parts; ++b) {
    for (int64_t i = 0; i < count; ++i) {
      strips_.push_back({i * height, std::min(rows_.own, (i + 1) * height), b * columns,
                         b + 1 == parts ? batch_ : (b + 1) * columns});
    }
  }
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

std::vector<Piece> ConvPlan::pieces(const Strip& strip, int wide, int narrow) const {
  const int64_t length = strip.batch_end - strip.batch_begin;
  const bool joined = length == batch_ && columns_.own_step == 1 && columns_.step == 1;  // a row is one stretch
  std::vector<Piece> result;
  for (const Axis::Segment& row : rows_.segments) {
    const int64_t from = std::max(row.begin, ceil_divide(strip.row_begin - row.phase, rows_.own_step));
    const int64_t to = std::min(row.end, ceil_divide(strip.row_end - row.phase, rows_.own_step));
    if (from >= to) continue;
    for (const Axis::Segment& column : columns_.segments) {
      Piece piece{runs(row, column), {}, {}};
      for (int64_t r = from; r < to; ++r) {
        const int64_t own = (row.phase + rows_.own_step * r) * columns_.own + column.phase;
        const int64_t other = rows_.step * r * columns_.other;
        for (int64_t c = column.begin; c < column.end; c += joined ? column.end : 1) {
          cut_stretch((own + columns_.own_step * c) * batch_ + strip.batch_begin,
                      (other + columns_.step * c) * batch_ + strip.batch_begin,
                      joined ? (column.end - c) * length : length, wide, narrow, piece);
        }
      }
      result.push_back(std::move(piece));
    }
  }
  return result;
}

}  // namespace sparseprune
