// Exact global selection: digit histograms of order-preserving keys, ties per tile, and the mask.
#include <cstring>
#include <limits>
#include <mutex>

#include "tiles.h"

namespace sparseprune {
namespace {

constexpr int GROUP = 64;

struct Scratch {
  double v[TILE], m[TILE];
  int32_t keep[TILE];
  uint32_t digit[TILE];
  uint8_t match[TILE];
};

// int64 key that sorts like the fp64 value (which is never -0).
inline int64_t order_key(double v) {
  int64_t key;
  std::memcpy(&key, &v, sizeof key);
  return key ^ static_cast<int64_t>(static_cast<uint64_t>(key >> 63) >> 1);
}

struct Window {
  int64_t low;
  int shift, bits;
};

struct Outside {
  int64_t above = 0, bad = 0;
};

// The bin of every key, whether it is one of the window's, and how many lie above it or are infinite or NaN.
CLONES Outside place(const double* v, Window w, uint32_t* digit, uint8_t* match) {
  const int64_t infinite = 0x7FF0000000000000;
  const uint64_t last = (uint64_t{1} << w.bits) - 1;
  Outside outside;
  for (int i = 0; i < TILE; ++i) {
    const int64_t key = order_key(v[i]);
    const uint64_t bin = (static_cast<uint64_t>(key) - static_cast<uint64_t>(w.low)) >> w.shift;
    const bool from = key >= w.low, inside = from & (bin <= last);
    digit[i] = static_cast<uint32_t>(bin);
    match[i] = inside;
    outside.above += from & !inside;
    outside.bad += (key >= infinite) | (key <= ~infinite);
  }
  return outside;
}

CLONES bool any(const uint8_t* match) {
  uint8_t found = 0;
  for (int i = 0; i < GROUP; ++i) found |= match[i];
  return found != 0;
}

// The digits that match move to the front, branch-free inside a group; returns how many there are among the first n.
int compact(uint32_t* digit, const uint8_t* match, int n) {
  int kept = 0;
  for (int g = 0; g < n; g += GROUP) {
    if (!any(match + g)) continue;
    for (int i = g; i < std::min(n, g + GROUP); ++i) {
      digit[kept] = digit[i];
      kept += match[i];
    }
  }
  return kept;
}

// Several histograms in turn: neighbours often share a bin, and an increment waits for the one before it.
void count_digits(const uint32_t* digit, int n, int32_t* counts, int64_t bins, int histograms) {
  for (int i = 0; i < n; ++i) ++counts[(i & (histograms - 1)) * bins + digit[i]];
}

// Keep keys above the threshold, and all of its ties or none; returns the ties among the first n.
template <class T>
inline int64_t mark_as(const double* v, int n, int shift, int64_t threshold, bool ties, T* keep) {
  int64_t found = 0;
  for (int i = 0; i < n; ++i) {
    const int64_t key = order_key(v[i]) >> shift;
    found += key == threshold;
    keep[i] = static_cast<T>((key > threshold) | (ties & (key == threshold)));
  }
  return found;
}
CLONES int64_t mark(const double* v, int n, int shift, int64_t threshold, bool ties, int32_t* keep) {
  return mark_as(v, n, shift, threshold, ties, keep);
}
CLONES int64_t mark(const double* v, int n, int shift, int64_t threshold, bool ties, double* keep) {
  return mark_as(v, n, shift, threshold, ties, keep);
}

// Only the first `quota` ties of the tile stay.
template <class T>
void drop_ties(const double* v, int n, int shift, int64_t threshold, int64_t quota, T* keep) {
  int64_t seen = 0;
  for (int i = 0; i < n; ++i) {
    if ((order_key(v[i]) >> shift) == threshold && ++seen > quota) keep[i] = 0;
  }
}

template <class T>
int64_t mark_tile(const double* v, int n, int shift, int64_t threshold, int64_t quota, T* keep) {
  const int64_t ties = mark(v, n, shift, threshold, quota > 0, keep);
  if (quota > 0 && quota < ties) drop_ties(v, n, shift, threshold, quota, keep);
  return ties;
}

Tensor key_histogram_cpu(std::vector<Tensor> scores, std::vector<Tensor> factors, int64_t transform, int64_t low,
                         int64_t shift, int64_t bits, int64_t step) {
  const Vector vector(scores, factors, transform);
  const Window window{low, static_cast<int>(shift), static_cast<int>(bits)};
  const int64_t bins = int64_t{1} << bits;
  const int histograms = bits <= 12 ? 4 : 1;
  Tensor result = torch::stable::new_zeros(scores[0], {bins + 2}, ScalarType::Long);
  auto* total = static_cast<int64_t*>(result.data_ptr());
  std::mutex adding;
  torch::stable::parallel_for(0, (vector.tiles() + step - 1) / step, 4, [&](int64_t begin, int64_t end) {
    const ExactSubnormals exact;
    const auto t = std::make_unique_for_overwrite<Scratch>();
    std::vector<int32_t> counts(histograms * bins);
    Outside outside;
    const auto add = [&] {
      const std::lock_guard<std::mutex> lock(adding);
      for (int64_t i = 0; i < histograms * bins; ++i) total[i % bins] += counts[i];
      std::fill(counts.begin(), counts.end(), 0);
    };
    for (int64_t i = begin; i < end; ++i) {
      const int64_t b = i * step;
      const int n = vector.count(b);
      vector.load(b, t->v);
      std::fill(t->v + n, t->v + TILE, std::numeric_limits<double>::lowest());  // absent: below, unless the window has it
      const Outside o = place(t->v, window, t->digit, t->match);
      outside.above += o.above;
      outside.bad += o.bad;
      count_digits(t->digit, compact(t->digit, t->match, n), counts.data(), bins, histograms);
      if ((i - begin) % (1 << 18) == (1 << 18) - 1) add();  // before an int32 could overflow
    }
    add();
    const std::lock_guard<std::mutex> lock(adding);
    total[bins] += outside.above;
    total[bins + 1] += outside.bad;
  });
  return result;
}

Tensor key_mark_cpu(std::vector<Tensor> scores, std::vector<Tensor> factors, int64_t transform, int64_t threshold,
                    int64_t shift, Tensor quota, int64_t output, std::vector<Tensor> weights, std::vector<Tensor> out) {
  const Vector vector(scores, factors, transform, weights, out);
  Tensor result = torch::stable::new_empty(scores[0], {vector.tiles()}, ScalarType::Long);
  auto* ties = static_cast<int64_t*>(result.data_ptr());
  const auto* limit = static_cast<const int64_t*>(quota.data_ptr());
  for_each_tile<Scratch>(vector.tiles(), [&](int64_t b, Scratch& t) {
    ties[b] = 0;
    if (limit[b] < 0) return;
    vector.load(b, t.v);
    const int n = vector.count(b), down = static_cast<int>(shift);
    ties[b] = output == WEIGHTS ? mark_tile(t.v, n, down, threshold, limit[b], t.m)
                                : mark_tile(t.v, n, down, threshold, limit[b], t.keep);
    vector.store(b, static_cast<Output>(output), t.m, t.keep);
  });
  return result;
}

}  // namespace
}  // namespace sparseprune

STABLE_TORCH_LIBRARY_IMPL(sparseprune, CPU, m) {
  m.impl("key_histogram", TORCH_BOX(&sparseprune::key_histogram_cpu));
  m.impl("key_mark", TORCH_BOX(&sparseprune::key_mark_cpu));
}
