// Convolutions of images that lie row by row: lanes of a register are neighbouring pixels.
//
// An image is copied with zeros around it, and its rows in a row: then every tap of every own pixel is a constant distance
// away, and own pixels are as flat a stretch of numbers, some of which, at the ends of rows, are of no image and dropped.
// Of other pixels with a step there are as many copies as remainders, for neighbours to be neighbours there. A strip is a few
// small images, one below the other, or rows of a large one; a panel so many other channels that a tile picks from the first
// cache. (Axis: see conv_plan.h.)
#pragma once

#include <algorithm>
#include <cstdint>

#include "cpu/conv_plan.h"

namespace sparseprune {

// What a place in the weight means for the walk, without its row.
struct FlatPlace {
  int32_t bucket, offset;  // phase and panel; numbers, from an own pixel to what it picks, in the copy of channel 0

  FlatPlace operator+(const FlatPlace& b) const { return {bucket + b.bucket, offset + b.offset}; }
};

// Pixels first + step a + r along an axis, for r < runs and 0 <= a < length.
struct Window {
  int64_t first, step, runs, length, size;

  // The places [begin, end) of run r whose pixels are in the image.
  int64_t begin(int64_t r) const;
  int64_t end(int64_t r) const;
};

// What decides how the work is cut.
struct FlatLoad {
  int64_t own_channels, other_channels, groups, entries, bytes;  // bytes: of a number
};

// Registers that the sums of a tile fill, and the lanes of one.
struct FlatShape {
  int64_t tile, lanes;
};

class FlatPlan {
 public:
  FlatPlan(Axis rows, Axis columns, int64_t images, const FlatLoad& load, const FlatShape& shape);

  int64_t phases() const { return rows_.own_step * columns_.own_step; }
  int64_t panels() const { return panels_; }
  int64_t strips() const { return (images_ + stack_ - 1) / stack_ * down_; }
  // The images of a strip, [first, last).
  int64_t first_image(int64_t strip) const { return strip / down_ * stack_; }
  int64_t last_image(int64_t strip) const { return std::min(first_image(strip) + stack_, images_); }
  // Whether all strips have their zeros at the same places.
  bool alike() const { return down_ == 1; }
  int64_t points() const { return rows_points_ * columns_points_; }
  int64_t taps() const { return static_cast<int64_t>(rows_.shift.size() * columns_.shift.size()); }
  // Numbers of a channel's copy, of a run of it, of an image, of a row; and of an own channel.
  int64_t plane() const { return plane_; }
  int64_t run() const { return stack_ * image(); }
  int64_t image() const { return run_ * pitch_; }
  int64_t pitch() const { return pitch_; }
  int64_t own_plane() const { return own_plane_; }
  FlatPlace place(int64_t tap) const;
  FlatPlace place_of_channel(int64_t channel) const;
  Window other_rows(int64_t strip) const;
  Window other_columns() const;
  Window own_rows(int64_t strip, int64_t phase) const;
  Window own_columns(int64_t phase) const;

 private:
  void choose_strip(const FlatLoad& load, const FlatShape& shape, const int64_t* reach);
  void choose_panel(const FlatLoad& load, const FlatShape& shape, const int64_t* reach);

  Axis rows_, columns_;
  int64_t images_, rows_points_, columns_points_;  // points: of the first phase, which has the most
  int64_t height_, down_, stack_, run_, pitch_, plane_, own_plane_, panel_, panels_;
  int64_t least_[2];  // shifts
};

}  // namespace sparseprune
