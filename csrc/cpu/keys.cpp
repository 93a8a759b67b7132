// Exact global selection: digit histograms of order-preserving keys, ties per tile, and the mask.
#include <cstring>
#include <mutex>

#include "tiles.h"

namespace sparseprune {
namespace {

// int64 keys that sort like the fp64 values (which hold no -0).
CLONES void order_keys(const double* v, int64_t* key) {
  std::memcpy(key, v, TILE * sizeof(double));
  for (int i = 0; i < TILE; ++i) key[i] ^= static_cast<int64_t>(static_cast<uint64_t>(key[i] >> 63) >> 1);
}

CLONES void shift_keys(const int64_t* key, int shift, int64_t offset, int64_t mask, int32_t* digit) {
  for (int i = 0; i < TILE; ++i) digit[i] = static_cast<int32_t>(((key[i] >> shift) + offset) & mask);
}

CLONES void match_keys(const int64_t* key, int shift, int64_t prefix, uint8_t* match) {
  for (int i = 0; i < TILE; ++i) match[i] = (key[i] >> shift) == prefix;
}

CLONES int64_t count_ties(const int64_t* key, int n, int shift, int64_t threshold) {
  int64_t ties = 0;
  for (int i = 0; i < n; ++i) ties += (key[i] >> shift) == threshold;
  return ties;
}

// Keep keys above the threshold, and of its ties those whose rank in the tile is at most the quota.
CLONES void mark(const int64_t* key, int shift, int64_t threshold, bool ties, int32_t* keep) {
  for (int i = 0; i < TILE; ++i) {
    const int64_t k = key[i] >> shift;
    keep[i] = (k > threshold) | (ties & (k == threshold));
  }
}

void drop_ties(const int64_t* key, int shift, int64_t threshold, int64_t quota, int32_t* keep) {
  int64_t seen = 0;
  for (int i = 0; i < TILE; ++i) {
    if ((key[i] >> shift) == threshold && ++seen > quota) keep[i] = 0;
  }
}

CLONES void as_double(const int32_t* keep, double* m) {
  for (int i = 0; i < TILE; ++i) m[i] = keep[i];
}

// Branch-free: candidates move to the front of `digit`; returns how many there are.
int compact(int32_t* digit, const uint8_t* match, int n) {
  int kept = 0;
  for (int i = 0; i < n; ++i) {
    digit[kept] = digit[i];
    kept += match[i];
  }
  return kept;
}

Tensor key_histogram_cpu(std::vector<Tensor> scores, std::vector<Tensor> factors, int64_t transform, int64_t prefix,
                         int64_t shift, int64_t bits) {
  const Vector vector(scores, factors, transform);
  const int64_t bins = int64_t{1} << bits;
  const bool top = shift + bits == 64;
  Tensor result = torch::stable::new_zeros(scores[0], {bins}, ScalarType::Long);
  auto* total = static_cast<int64_t*>(result.data_ptr());
  std::mutex adding;
  torch::stable::parallel_for(0, vector.tiles(), 16, [&](int64_t begin, int64_t end) {
    const ExactSubnormals exact;
    double v[TILE];
    int64_t key[TILE];
    int32_t digit[TILE];
    uint8_t match[TILE];
    // Two histograms in turn: neighbours often share a bin, and an increment waits for the one before it.
    std::vector<int64_t> counts(2 * bins, 0);
    for (int64_t b = begin; b < end; ++b) {
      vector.load(b, v);
      order_keys(v, key);
      shift_keys(key, static_cast<int>(shift), top ? bins / 2 : 0, bins - 1, digit);
      int n = vector.count(b);
      if (!top) {
        match_keys(key, static_cast<int>(shift + bits), prefix, match);
        n = compact(digit, match, n);
      }
      for (int i = 0; i < n; ++i) ++counts[(i & 1) * bins + digit[i]];
    }
    const std::lock_guard<std::mutex> lock(adding);
    for (int64_t i = 0; i < bins; ++i) total[i] += counts[i] + counts[bins + i];
  });
  return result;
}

Tensor key_ties_cpu(std::vector<Tensor> scores, std::vector<Tensor> factors, int64_t transform, int64_t threshold,
                    int64_t shift) {
  const Vector vector(scores, factors, transform);
  Tensor result = torch::stable::new_empty(scores[0], {vector.tiles()}, ScalarType::Long);
  auto* ties = static_cast<int64_t*>(result.data_ptr());
  for_each_tile(vector.tiles(), [&](int64_t b) {
    double v[TILE];
    int64_t key[TILE];
    vector.load(b, v);
    order_keys(v, key);
    ties[b] = count_ties(key, vector.count(b), static_cast<int>(shift), threshold);
  });
  return result;
}

void key_mark_cpu(std::vector<Tensor> scores, std::vector<Tensor> factors, int64_t transform, int64_t threshold,
                  int64_t shift, Tensor quota, int64_t output, std::vector<Tensor> weights, std::vector<Tensor> out) {
  const Vector vector(scores, factors, transform, weights, out);
  const auto* limit = static_cast<const int64_t*>(quota.data_ptr());
  for_each_tile(vector.tiles(), [&](int64_t b) {
    double v[TILE];
    int64_t key[TILE];
    int32_t keep[TILE];
    vector.load(b, v);
    order_keys(v, key);
    mark(key, static_cast<int>(shift), threshold, limit[b] > 0, keep);
    if (limit[b] > 0 && limit[b] < TILE) drop_ties(key, static_cast<int>(shift), threshold, limit[b], keep);
    if (output == WEIGHTS) as_double(keep, v);
    vector.store(b, static_cast<Output>(output), v, keep);
  });
}

}  // namespace
}  // namespace sparseprune

STABLE_TORCH_LIBRARY_IMPL(sparseprune, CPU, m) {
  m.impl("key_histogram", TORCH_BOX(&sparseprune::key_histogram_cpu));
  m.impl("key_ties", TORCH_BOX(&sparseprune::key_ties_cpu));
  m.impl("key_mark", TORCH_BOX(&sparseprune::key_mark_cpu));
}
