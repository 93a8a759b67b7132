// Histograms of order-preserving keys over a window: the values themselves, or a race between them.
#include <cstring>
#include <mutex>
#include <tuple>
#include <vector>

#include "keys.h"
#include "race.h"

namespace sparseprune {
namespace {

constexpr int GROUP = 64;
constexpr int CROWD = TILE / 8;  // keys of a tile in the window from which it is worked on without branches

template <class V>
struct Scratch {
  V v[TILE];
  double wide[TILE];
  uint32_t digit[TILE];
  uint8_t inside[TILE];
};

template <class V>
struct Field {
  V v[TILE];
  int64_t key[TILE];
  Sides sides;
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

// The same by keys, with the bin of each: right for infinite values and NaN too. Zeros, of which a pruned net is full,
// are counted apart and not inside.
CLONES Tally place_keys(const double* v, int n, Window w, uint32_t* digit, uint8_t* inside) {
  const uint64_t last = w.last();
  Tally tally;
  for (int i = 0; i < n; ++i) {
    const int64_t key = order_key(v[i]);
    const uint64_t bin = w.bin(key);
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

// What all threads add to.
struct Totals {
  int64_t *bins, *sums;
  std::mutex adding;
};

// Counts of one thread. Where few keys of a tile lie in the window they are noted; a thread has bins of its own from
// the first crowded tile on: for few bins several in turn, as neighbours often share a bin and an increment waits for
// the one before it.
class Histogram {
 public:
  Histogram(Window window, bool race, Totals& totals)
      : window_(window),
        race_(race),
        bins_(int64_t{1} << window.bits),
        copies_(window.bits <= 12 && !race ? 4 : 1),
        low_(value_of<double>(window.low)),
        high_(value_of<double>(window.high())),
        totals_(totals) {
    noted_.reserve(NOTES);
  }
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
      add_crowd(t.digit, compact(t.digit, t.inside, n), tally.zeros);
    } else {
      add_few(t.v, n, t.inside);
    }
    above_ += tally.above;
    bad_ += tally.bad;
    visited();
  }

  // Tile b, whose number in the race is `number`.
  template <class V>
  void add(const Vector& vector, int64_t b, const Race& race, uint32_t number, Field<V>& t) {
    vector.load(b, t.v);
    bad_ += clear_bad(t.v);
    if (race.glance(t.v, number, low_, high_, t.sides) <= FEW) {
      above_ += t.sides.above;
      t.sides.for_each_near([&](int i) { add_near(race.key(t.v[i], number, i)); });
    } else {
      race.keys(t.v, number, t.key);
      add_keys(t.key, vector.count(b));
    }
    visited();
  }

 private:
  static constexpr size_t NOTES = 1024;

  void visited() {
    if (noted_.size() >= NOTES - CROWD || ++tiles_ % (1 << 18) == 0) flush();  // an int32 could overflow
  }

  void flush() {
    const std::lock_guard<std::mutex> lock(totals_.adding);
    for (const uint64_t offset : noted_) {
      ++totals_.bins[offset >> window_.shift];
      if (race_) totals_.sums[offset >> window_.shift] += static_cast<int64_t>(offset);
    }
    for (size_t i = 0; i < counts_.size(); ++i) totals_.bins[i & (bins_ - 1)] += counts_[i];
    for (size_t i = 0; i < sums_.size(); ++i) totals_.sums[i] += static_cast<int64_t>(sums_[i]);
    totals_.bins[bins_] += above_;
    totals_.bins[bins_ + 1] += bad_;
    noted_.clear();
    std::fill(counts_.begin(), counts_.end(), 0);
    std::fill(sums_.begin(), sums_.end(), 0);
    above_ = bad_ = 0;
  }

  template <class V>
  void add_few(const V* v, int n, const uint8_t* inside) {
    for (int g = 0; g < n; g += GROUP) {
      if (!any(inside + g)) continue;
      for (int i = g; i < std::min(n, g + GROUP); ++i) {
        if (inside[i]) noted_.push_back(window_.offset(order_key(v[i])));
      }
    }
  }

  void add_crowd(const uint32_t* digit, int kept, int64_t zeros) {
    counts_.resize(copies_ * bins_);
    for (int i = 0; i < kept; ++i) ++counts_[(i & (copies_ - 1)) * bins_ + digit[i]];
    const uint64_t zero = window_.bin(0);
    if (window_.low <= 0 && zero <= window_.last()) counts_[zero] += static_cast<int32_t>(zeros);
  }

  void add_near(int64_t key) {
    if (key < window_.low) return;
    if (window_.bin(key) > window_.last()) {
      ++above_;
    } else {
      noted_.push_back(window_.offset(key));
    }
  }

  void add_keys(const int64_t* key, int n) {
    counts_.resize(bins_);
    sums_.resize(bins_);
    for (int i = 0; i < n; ++i) {
      if (key[i] < window_.low) continue;
      const uint64_t offset = window_.offset(key[i]), bin = offset >> window_.shift;
      if (bin > window_.last()) {
        ++above_;
      } else {
        ++counts_[bin];
        sums_[bin] += offset;
      }
    }
  }

  Window window_;
  bool race_;
  int64_t bins_;
  int copies_;
  double low_, high_;
  std::vector<uint64_t> noted_;  // offsets of keys in the window
  std::vector<int32_t> counts_;
  std::vector<uint64_t> sums_;
  int64_t above_ = 0, bad_ = 0, tiles_ = 0;
  Totals& totals_;
};

// Those whose number is a multiple of `step`.
struct Tiles {
  int64_t count;
  const TileNumbers& number;
  int64_t step;
};

// add(histogram, b, scratch) for the tiles, spread over the threads.
template <class Scratch, class F>
void count_tiles(const Tiles& tiles, Window window, bool race, Totals& totals, const F& add) {
  torch::stable::parallel_for(0, tiles.count, 4, [&](int64_t begin, int64_t end) {
    const ExactSubnormals exact;
    const auto scratch = std::make_unique_for_overwrite<Scratch>();
    Histogram histogram(window, race, totals);
    for (int64_t b = begin; b < end; ++b) {
      if (tiles.number[b] % tiles.step == 0) add(histogram, b, *scratch);
    }
  });
}

// race: null where the values themselves are the keys.
template <class V>
void count_keys(const Vector& vector, const Tiles& tiles, const Race* race, Window window, Totals& totals) {
  if (race == nullptr) {
    count_tiles<Scratch<V>>(tiles, window, false, totals,
                            [&](Histogram& histogram, int64_t b, Scratch<V>& t) { histogram.add(vector, b, t); });
  } else {
    count_tiles<Field<V>>(tiles, window, true, totals, [&](Histogram& histogram, int64_t b, Field<V>& t) {
      histogram.add(vector, b, *race, static_cast<uint32_t>(tiles.number[b]), t);
    });
  }
}

std::tuple<Tensor, Tensor> key_histogram_cpu(std::vector<Tensor> scores, std::vector<Tensor> factors, int64_t transform,
                                             int64_t race, Tensor ids, int64_t exponent, int64_t seed, int64_t stream,
                                             int64_t low, int64_t shift, int64_t bits, int64_t step) {
  const Vector vector(scores, factors, transform);
  const TileNumbers number(ids);
  const Window window{low, static_cast<int>(shift), static_cast<int>(bits)};
  const int64_t bins = int64_t{1} << bits;
  Tensor counts = torch::stable::new_zeros(scores[0], {bins + 2}, ScalarType::Long);
  Tensor sums = torch::stable::new_zeros(scores[0], {race == PLAIN ? 0 : bins}, ScalarType::Long);
  Totals totals{static_cast<int64_t*>(counts.data_ptr()), static_cast<int64_t*>(sums.data_ptr())};
  const Tiles tiles{vector.tiles(), number, step};
  const Race runners(race, exponent, seed, stream), *keys = race == PLAIN ? nullptr : &runners;
  vector.fits_float() ? count_keys<float>(vector, tiles, keys, window, totals)
                      : count_keys<double>(vector, tiles, keys, window, totals);
  return {counts, sums};
}

}  // namespace
}  // namespace sparseprune

STABLE_TORCH_LIBRARY_IMPL(sparseprune, CPU, m) { m.impl("key_histogram", TORCH_BOX(&sparseprune::key_histogram_cpu)); }
