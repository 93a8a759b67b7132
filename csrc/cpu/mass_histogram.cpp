// How many positive scores share their leading bits, and the sum of their next ones: what stands for all scores.
#include <cstring>
#include <mutex>
#include <tuple>
#include <vector>

#include "rescale.h"

namespace sparseprune {
namespace {

constexpr int BINS = 1 << 18, DROPPED = 29, NEXT = 16;  // bits(v) in full: 18 of the bin, 16 summed, 29 dropped
constexpr int SPARE = 128;                              // bins below those of the least normal number
constexpr int SUM_BITS = 40;                            // of a thread's bin; its count lies above
constexpr int TILES = 1 << 11;                          // before a count or a sum could overflow

template <class V>
struct Scratch {
  V v[TILE];
  uint64_t place[TILE];
};

// Bin and next bits of every value. Zeros, of which a pruned net is full, go to the spare bins in turn, as an increment
// waits for the one before it.
template <class V>
inline void leading_bits_of(const V* v, const Rescale& rescale, uint64_t* place) {
  for (uint64_t i = 0; i < TILE; ++i) {
    const double x = rescale(v[i]);
    uint64_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    place[i] = bits == 0 ? (i % SPARE) << NEXT : bits >> DROPPED;
  }
}
CLONES void leading_bits(const double* v, const Rescale& rescale, uint64_t* place) {
  leading_bits_of(v, rescale, place);
}
CLONES void leading_bits(const float* v, const Rescale& rescale, uint64_t* place) {
  leading_bits_of(v, rescale, place);
}

class Counter {
 public:
  Counter(int64_t* total, int64_t* bad, std::mutex& adding)
      : bins_(BINS), total_(total), bad_total_(bad), adding_(adding) {}
  ~Counter() { flush(); }

  template <class V>
  void add(const Vector& vector, int64_t b, const Rescale& rescale, Scratch<V>& t) {
    vector.load(b, t.v);
    bad_ += clear_bad(t.v);
    leading_bits(t.v, rescale, t.place);
    for (int i = 0; i < TILE; ++i) {
      const uint64_t next = t.place[i] & ((1 << NEXT) - 1);
      bins_[t.place[i] >> NEXT] += uint64_t{1} << SUM_BITS | next;
    }
    if (++tiles_ % TILES == 0) flush();
  }

 private:
  void flush() {
    const std::lock_guard<std::mutex> lock(adding_);
    for (int i = SPARE; i < BINS; ++i) {
      total_[i] += static_cast<int64_t>(bins_[i] >> SUM_BITS);
      total_[BINS + i] += static_cast<int64_t>(bins_[i] & ((uint64_t{1} << SUM_BITS) - 1));
    }
    std::fill(bins_.begin(), bins_.end(), 0);
    *bad_total_ += bad_;
    bad_ = 0;
  }

  std::vector<uint64_t> bins_;
  int64_t bad_ = 0, tiles_ = 0;
  int64_t *total_, *bad_total_;
  std::mutex& adding_;
};

template <class V>
void count(const Vector& vector, const Rescale& rescale, int64_t* total, int64_t* bad) {
  std::mutex adding;
  torch::stable::parallel_for(0, vector.tiles(), 4, [&](int64_t begin, int64_t end) {
    const ExactSubnormals exact;
    const auto scratch = std::make_unique_for_overwrite<Scratch<V>>();
    Counter counter(total, bad, adding);
    for (int64_t b = begin; b < end; ++b) counter.add(vector, b, rescale, *scratch);
  });
}

std::tuple<Tensor, Tensor> mass_histogram_cpu(std::vector<Tensor> scores, std::vector<Tensor> factors, int64_t transform,
                                              int64_t exponent) {
  const Vector vector(scores, factors, transform);
  const Rescale rescale(exponent);
  Tensor total = torch::stable::new_zeros(scores[0], {2, BINS}, ScalarType::Long);
  Tensor bad = torch::stable::new_zeros(scores[0], {1}, ScalarType::Long);
  auto* bins = static_cast<int64_t*>(total.data_ptr());
  auto* rejected = static_cast<int64_t*>(bad.data_ptr());
  vector.fits_float() ? count<float>(vector, rescale, bins, rejected) : count<double>(vector, rescale, bins, rejected);
  return {total, bad};
}

}  // namespace
}  // namespace sparseprune

STABLE_TORCH_LIBRARY_IMPL(sparseprune, CPU, m) { m.impl("mass_histogram", TORCH_BOX(&sparseprune::mass_histogram_cpu)); }
