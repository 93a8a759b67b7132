// Exact global selection: histograms of order-preserving keys over a window, and the mask.
#include <cmath>
#include <cstring>
#include <limits>
#include <mutex>

#include "tiles.h"

namespace sparseprune {
namespace {

constexpr int GROUP = 64;
constexpr int CROWD = TILE / 8;  // keys of a tile in the window from which it is worked on without branches
constexpr double INFINITE = std::numeric_limits<double>::infinity();
constexpr int64_t INFINITE_KEY = 0x7FF0000000000000, LARGEST_KEY = std::numeric_limits<int64_t>::max();

template <class V>
struct Scratch {
  V v[TILE];
  double wide[TILE];
  uint32_t digit[TILE];
  uint8_t inside[TILE];
};

// int64 key that sorts like the fp64 value (which is never -0).
inline int64_t order_key(double v) {
  int64_t key;
  std::memcpy(&key, &v, sizeof key);
  return key ^ static_cast<int64_t>(static_cast<uint64_t>(key >> 63) >> 1);
}

// The least value whose key is at least `key`, for finite values.
template <class V>
V value_of(int64_t key) {
  if (key > INFINITE_KEY) return INFINITE;
  if (key < ~INFINITE_KEY) return -INFINITE;
  key ^= static_cast<int64_t>(static_cast<uint64_t>(key >> 63) >> 1);
  double value;
  std::memcpy(&value, &key, sizeof value);
  const V nearest = static_cast<V>(value);
  return static_cast<double>(nearest) < value ? std::nextafter(nearest, static_cast<V>(INFINITE)) : nearest;
}

struct Window {
  int64_t low;
  int shift, bits;

  bool everything() const { return shift + bits >= 64; }
  int64_t high() const {
    const auto room = static_cast<uint64_t>(LARGEST_KEY) - static_cast<uint64_t>(low);
    const uint64_t width = everything() ? room : uint64_t{1} << (shift + bits);
    return width < room ? static_cast<int64_t>(static_cast<uint64_t>(low) + width) : LARGEST_KEY;
  }
  uint64_t bin(double v) const { return (static_cast<uint64_t>(order_key(v)) - static_cast<uint64_t>(low)) >> shift; }
};

struct Tally {
  int64_t inside = 0, above = 0, bad = 0, zeros = 0;
};

// Which values lie in [low, high); how many lie above, and how many are infinite or NaN.
template <class V>
inline Tally compare(const V* v, int n, V low, V high, uint8_t* inside) {
  int32_t in = 0, above = 0, good = 0;
  for (int i = 0; i < n; ++i) {
    inside[i] = (v[i] >= low) & (v[i] < high);
    in += inside[i];
    above += v[i] >= high;
    good += std::fabs(v[i]) <= std::numeric_limits<V>::max();
  }
  return {in, above, n - good};
}
CLONES Tally place(const double* v, int n, double low, double high, uint8_t* inside) {
  return compare(v, n, low, high, inside);
}
CLONES Tally place(const float* v, int n, float low, float high, uint8_t* inside) {
  return compare(v, n, low, high, inside);
}

CLONES bool any(const uint8_t* match) {
  uint8_t found = 0;
  for (int i = 0; i < GROUP; ++i) found |= match[i];
  return found != 0;
}

// The same by keys, with the bin of each: right for infinite values and NaN too. Zeros, of which a pruned net is full, are
// counted apart and not inside.
CLONES Tally place_keys(const double* v, int n, Window w, uint32_t* digit, uint8_t* inside) {
  const uint64_t last = (uint64_t{1} << w.bits) - 1;
  Tally tally;
  for (int i = 0; i < n; ++i) {
    const int64_t key = order_key(v[i]);
    const uint64_t bin = w.bin(v[i]);
    digit[i] = static_cast<uint32_t>(bin);
    inside[i] = (key >= w.low) & (bin <= last) & (key != 0);
    tally.zeros += key == 0;
    tally.above += (key >= w.low) & (bin > last);
    tally.bad += (key >= INFINITE_KEY) | (key <= ~INFINITE_KEY);
  }
  return tally;
}

// The digits that are inside move to the front, branch-free in a group; returns how many there are among the first n.
int compact(uint32_t* digit, const uint8_t* inside, int n) {
  int kept = 0;
  for (int g = 0; g < n; g += GROUP) {
    if (!any(inside + g)) continue;
    for (int i = g; i < std::min(n, g + GROUP); ++i) {
      digit[kept] = digit[i];
      kept += inside[i];
    }
  }
  return kept;
}

// Counts of one thread: for few bins several histograms in turn, as neighbours often share a bin and an increment waits
// for the one before it.
class Histogram {
 public:
  Histogram(Window window, int64_t* total, std::mutex& adding)
      : window_(window),
        bins_(int64_t{1} << window.bits),
        copies_(window.bits <= 12 ? 4 : 1),
        counts_(copies_ * bins_),
        total_(total),
        adding_(adding) {}
  ~Histogram() { flush(); }

  template <class V>
  void add(const Vector& vector, int64_t b, Scratch<V>& t) {
    const int n = vector.count(b);
    vector.load(b, t.v);
    std::fill(t.inside + n, t.inside + TILE, uint8_t{0});
    Tally tally = place(t.v, n, value_of<V>(window_.low), value_of<V>(window_.high()), t.inside);
    if (tally.bad > 0 || tally.inside > CROWD || window_.everything()) {
      std::copy_n(t.v, TILE, t.wide);
      tally = place_keys(t.wide, n, window_, t.digit, t.inside);
      const int kept = compact(t.digit, t.inside, n);
      for (int i = 0; i < kept; ++i) ++counts_[(i & (copies_ - 1)) * bins_ + t.digit[i]];
      if (window_.low <= 0 && window_.bin(0.0) < static_cast<uint64_t>(bins_)) counts_[window_.bin(0.0)] += tally.zeros;
    } else {
      add_few(t.v, n, t.inside);
    }
    above_ += tally.above;
    bad_ += tally.bad;
    if (++tiles_ % (1 << 18) == 0) flush();  // before an int32 could overflow
  }

 private:
  void flush() {
    const std::lock_guard<std::mutex> lock(adding_);
    for (int64_t i = 0; i < copies_ * bins_; ++i) total_[i % bins_] += counts_[i];
    total_[bins_] += above_;
    total_[bins_ + 1] += bad_;
    std::fill(counts_.begin(), counts_.end(), 0);
    above_ = bad_ = 0;
  }

  template <class V>
  void add_few(const V* v, int n, const uint8_t* inside) {
    for (int g = 0; g < n; g += GROUP) {
      if (!any(inside + g)) continue;
      for (int i = g; i < std::min(n, g + GROUP); ++i) {
        if (inside[i]) ++counts_[window_.bin(v[i])];
      }
    }
  }

  Window window_;
  int64_t bins_;
  int copies_;
  std::vector<int32_t> counts_;
  int64_t above_ = 0, bad_ = 0, tiles_ = 0;
  int64_t* total_;
  std::mutex& adding_;
};

template <class V>
void count_keys(const Vector& vector, Window window, int64_t step, int64_t* total) {
  std::mutex adding;
  torch::stable::parallel_for(0, (vector.tiles() + step - 1) / step, 4, [&](int64_t begin, int64_t end) {
    const ExactSubnormals exact;
    const auto scratch = std::make_unique_for_overwrite<Scratch<V>>();
    Histogram histogram(window, total, adding);
    for (int64_t i = begin; i < end; ++i) histogram.add(vector, i * step, *scratch);
  });
}

Tensor key_histogram_cpu(std::vector<Tensor> scores, std::vector<Tensor> factors, int64_t transform, int64_t low,
                         int64_t shift, int64_t bits, int64_t step) {
  const Vector vector(scores, factors, transform);
  const Window window{low, static_cast<int>(shift), static_cast<int>(bits)};
  Tensor result = torch::stable::new_zeros(scores[0], {(int64_t{1} << bits) + 2}, ScalarType::Long);
  auto* total = static_cast<int64_t*>(result.data_ptr());
  vector.fits_float() ? count_keys<float>(vector, window, step, total) : count_keys<double>(vector, window, step, total);
  return result;
}

// Keep values from `high` on, and all of the ties in [low, high) or none; returns the ties among the first n.
template <class V>
inline int64_t mark_as(const V* v, int n, V low, V high, bool ties, uint8_t* keep) {
  int32_t found = 0;
  for (int i = 0; i < n; ++i) {
    const bool tie = (v[i] >= low) & (v[i] < high);
    found += tie;
    keep[i] = (v[i] >= high) | (ties & tie);
  }
  return found;
}
CLONES int64_t mark(const double* v, int n, double low, double high, bool ties, uint8_t* keep) {
  return mark_as(v, n, low, high, ties, keep);
}
CLONES int64_t mark(const float* v, int n, float low, float high, bool ties, uint8_t* keep) {
  return mark_as(v, n, low, high, ties, keep);
}

// Only the first `quota` ties of the tile stay.
template <class V>
void drop_ties(const V* v, int n, V low, V high, int64_t quota, uint8_t* keep) {
  int64_t seen = 0;
  for (int i = 0; i < n; ++i) {
    if (v[i] >= low && v[i] < high && ++seen > quota) keep[i] = 0;
  }
}

template <class V>
void mark_keys(const Vector& vector, Window cut, const int64_t* quota, bool weights, int64_t* ties) {
  const ExactSubnormals exact;
  const V low = value_of<V>(cut.low), high = value_of<V>(cut.high());
  for_each_tile<Scratch<V>>(vector.tiles(), [&](int64_t b, Scratch<V>& t) {
    ties[b] = 0;
    if (quota[b] < 0) return;
    const int n = vector.count(b);
    vector.load(b, t.v);
    ties[b] = mark(t.v, n, low, high, quota[b] > 0, t.inside);
    if (quota[b] > 0 && quota[b] < ties[b]) drop_ties(t.v, n, low, high, quota[b], t.inside);
    vector.store_marks(b, weights, t.inside);
  });
}

Tensor key_mark_cpu(std::vector<Tensor> scores, std::vector<Tensor> factors, int64_t transform, int64_t threshold,
                    int64_t shift, Tensor quota, int64_t output, std::vector<Tensor> weights, std::vector<Tensor> out) {
  const Vector vector(scores, factors, transform, weights, out);
  Tensor result = torch::stable::new_empty(scores[0], {vector.tiles()}, ScalarType::Long);
  auto* ties = static_cast<int64_t*>(result.data_ptr());
  const auto* limit = static_cast<const int64_t*>(quota.data_ptr());
  const Window cut{static_cast<int64_t>(static_cast<uint64_t>(threshold) << shift), static_cast<int>(shift), 0};
  vector.fits_float() ? mark_keys<float>(vector, cut, limit, output == WEIGHTS, ties)
                      : mark_keys<double>(vector, cut, limit, output == WEIGHTS, ties);
  return result;
}

}  // namespace
}  // namespace sparseprune

STABLE_TORCH_LIBRARY_IMPL(sparseprune, CPU, m) {
  m.impl("key_histogram", TORCH_BOX(&sparseprune::key_histogram_cpu));
  m.impl("key_mark", TORCH_BOX(&sparseprune::key_mark_cpu));
}
