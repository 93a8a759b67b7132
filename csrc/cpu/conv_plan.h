// A convolution's geometry as a gather: every pixel of `own` takes entries' pixels of `other`.
//
// Forward and dW: own = the output, other = the input. dX: own = the input, other = the output. Along an axis, own pixels
// p = phase + own_step t meet, through a tap of that phase, the other pixel step t + shift(tap). A phase is what a stride
// makes of dX: the pixels that the same taps reach. Taps that reach a pixel are an interval of the phase's taps.
#pragma once

#include <cstdint>
#include <vector>

namespace sparseprune {

struct Geometry {
  int64_t kernel[2], stride[2], before[2], after[2], dilation[2], groups;

  explicit Geometry(const std::vector<int64_t>& numbers);
  int64_t taps() const { return kernel[0] * kernel[1]; }
  int64_t output(int axis, int64_t input) const;
};

class Axis {
 public:
  // A range of t whose pixels the same taps reach: those of rank low <= rank < high within the phase.
  struct Segment {
    int64_t phase, begin, end, low, high;
  };

  static Axis forward(const Geometry& g, int axis, int64_t input, int64_t output);
  static Axis backward(const Geometry& g, int axis, int64_t input, int64_t output);

  int64_t own, other, own_step, step;
  std::vector<int64_t> phase, shift, rank;  // of a tap; its rank is within its phase
  std::vector<int64_t> phase_begin;         // how many taps the phases before have; one more at the end
  std::vector<Segment> segments;

  // How many other pixels `count` own_step own pixels reach.
  int64_t reach(int64_t count) const;
  // The part of a segment that lies in the own pixels [begin, end).
  Segment within(const Segment& segment, int64_t begin, int64_t end) const;

 private:
  void finish();
};

// A stretch of n elements: where it begins in an own channel and in another channel (which a tap's offset moves).
struct Stretch {
  int64_t own, other;
  int n;
};

// Own pixels that are done together, so that what they gather stays in cache. With the whole batch: a part of it would lie
// in as small a part of the cache's sets.
struct Strip {
  int64_t row_begin, row_end, column_begin, column_end;
};

// Pixels of a strip that the same taps reach, cut into stretches: wide ones of one length, then narrow ones.
struct Patch {
  std::vector<std::pair<int64_t, int64_t>> runs;  // ranks of the taps: first, behind the last
  std::vector<Stretch> wide, narrow;
};

// What decides how the work is cut.
struct Load {
  int64_t own_channels, other_channels, entries, element_bytes;
  bool panels;  // whether own may be summed in several parts
};

class ConvPlan {
 public:
  ConvPlan(Axis rows, Axis columns, int64_t batch, const Load& load);

  // The place of a tap among all, by phase: taps of a patch stand side by side.
  int64_t rank(int64_t tap) const;
  // What a tap adds to an offset.
  int64_t shift(int64_t tap) const;
  int64_t taps() const { return static_cast<int64_t>(rows_.shift.size() * columns_.shift.size()); }
  int64_t own_plane() const { return rows_.own * columns_.own * batch_; }
  int64_t other_channels() const { return other_channels_; }
  int64_t other_plane() const { return rows_.other * columns_.other * batch_; }
  const std::vector<Strip>& strips() const { return strips_; }
  // Channels of other that are gathered from in one go; further ones add to what these gave.
  int64_t panel() const { return panel_; }
  int64_t panels() const { return panels_; }
  std::vector<Patch> patches(const Strip& strip, int wide, int narrow) const;

 private:
  struct Cut {
    int64_t panels, height, width;  // height and width in own_step
  };
  double cost(const Cut& cut, const Load& load) const;
  Cut best_cut(const Load& load) const;
  std::vector<std::pair<int64_t, int64_t>> runs(const Axis::Segment& row, const Axis::Segment& column) const;

  Axis rows_, columns_;
  int64_t batch_, other_channels_, panel_, panels_ = 1;
  std::vector<Strip> strips_;
};

}  // namespace sparseprune
