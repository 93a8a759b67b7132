#include "cpu/flat_plan.h"

#include <algorithm>
#include <utility>

namespace sparseprune {
namespace {

constexpr int64_t FIRST_CACHE = 36 << 10, COPY_BYTES = 768 << 10;  // for a panel's part of a copy, for a copy
constexpr int64_t TILES = 4, FEWEST = 4;  // tiles that small images fill together; registers of the smallest tile
constexpr double FEW = 6;                 // entries of a row in a panel that pay for loading and storing its sums

int64_t ceil_divide(int64_t a, int64_t b) { return a / b + (a % b > 0); }

int64_t points_of(const Axis& axis, int64_t phase) {
  return axis.own > phase ? ceil_divide(axis.own - phase, axis.own_step) : 0;
}

}  // namespace

int64_t Window::begin(int64_t r) const { return std::clamp<int64_t>(ceil_divide(-first - r, step), 0, length); }
int64_t Window::end(int64_t r) const { return std::clamp<int64_t>(ceil_divide(size - first - r, step), begin(r), length); }

FlatPlan::FlatPlan(Axis rows, Axis columns, int64_t images, const FlatLoad& load, const FlatShape& shape)
    : rows_(std::move(rows)), columns_(std::move(columns)), images_(images) {
  rows_points_ = points_of(rows_, 0);
  columns_points_ = points_of(columns_, 0);
  int64_t reach[2];  // points beyond its own that a stretch picks from
  const Axis* const axes[] = {&rows_, &columns_};
  for (int i = 0; i < 2; ++i) {
    const auto [least, most] = std::minmax_element(axes[i]->shift.begin(), axes[i]->shift.end());
    least_[i] = *least;
    reach[i] = (*most - *least) / axes[i]->step;
  }
  choose_strip(load, shape, reach);
  choose_panel(load, shape, reach);
}

void FlatPlan::choose_strip(const FlatLoad& load, const FlatShape& shape, const int64_t* reach) {
  const int64_t runs = rows_.step * columns_.step, most = std::max<int64_t>(rows_points_, 1);
  pitch_ = columns_points_ + reach[1];
  const int64_t fit = std::max<int64_t>(COPY_BYTES / (load.other_channels * runs * pitch_ * load.bytes + 1), 1);
  height_ = ceil_divide(most, ceil_divide(most, std::clamp<int64_t>(fit - reach[0], 1, most)));
  down_ = ceil_divide(rows_points_, height_);
  run_ = height_ + reach[0];
  const int64_t filled = std::min(fit, ceil_divide(TILES * shape.tile * shape.lanes, std::max<int64_t>(pitch_, 1)));
  stack_ = down_ > 1 ? 1 : std::clamp<int64_t>(filled / run_, 1, std::max<int64_t>(images_, 1));
  const int64_t least = FEWEST * shape.lanes;
  own_plane_ = ceil_divide(run() - reach[0] * pitch_, least) * least;
  // The last tile picks numbers beyond the last row's. Odd registers: channels must not fall on the same sets of a cache.
  plane_ = ((ceil_divide(runs * run(), shape.lanes) + FEWEST) | 1) * shape.lanes;
}

void FlatPlan::choose_panel(const FlatLoad& load, const FlatShape& shape, const int64_t* reach) {
  const int64_t channels = std::max<int64_t>(load.other_channels, 1);
  const int64_t picked = shape.tile * shape.lanes + reach[0] * pitch_ + reach[1];
  const int64_t near = FIRST_CACHE / (rows_.step * columns_.step * picked * load.bytes);
  const double cells = static_cast<double>(load.own_channels * channels * phases()) / static_cast<double>(load.groups);
  const auto enough = static_cast<int64_t>(FEW * cells / static_cast<double>(load.entries + 1));
  panel_ = std::clamp<int64_t>(std::max(near, enough), 1, channels);
  panels_ = panel_ + panel_ / 2 >= channels ? 1 : ceil_divide(channels, panel_);
  panel_ = ceil_divide(channels, panels_);
}

FlatPlace FlatPlan::place(int64_t tap) const {
  const auto across = static_cast<int64_t>(columns_.shift.size());
  const int64_t r = tap / across, c = tap % across, phase = rows_.phase[r] * columns_.own_step + columns_.phase[c];
  const int64_t down = rows_.shift[r] - least_[0], right = columns_.shift[c] - least_[1];
  const int64_t copy = down % rows_.step * columns_.step + right % columns_.step;
  const int64_t offset = copy * run() + down / rows_.step * pitch_ + right / columns_.step;
  return {static_cast<int32_t>(phase * panels_), static_cast<int32_t>(offset)};
}

FlatPlace FlatPlan::place_of_channel(int64_t channel) const {
  return {static_cast<int32_t>(channel / panel_), static_cast<int32_t>(channel * plane_)};
}

Window FlatPlan::other_rows(int64_t strip) const {
  return {rows_.step * (strip % down_ * height_) + least_[0], rows_.step, rows_.step, run_, rows_.other};
}

Window FlatPlan::other_columns() const { return {least_[1], columns_.step, columns_.step, pitch_, columns_.other}; }

Window FlatPlan::own_rows(int64_t strip, int64_t phase) const {
  const int64_t p = phase / columns_.own_step, first = strip % down_ * height_;
  return {p + rows_.own_step * first, rows_.own_step, 1, std::clamp<int64_t>(points_of(rows_, p) - first, 0, height_), rows_.own};
}

Window FlatPlan::own_columns(int64_t phase) const {
  const int64_t p = phase % columns_.own_step;
  return {p, columns_.own_step, 1, points_of(columns_, p), columns_.own};
}

}  // namespace sparseprune
