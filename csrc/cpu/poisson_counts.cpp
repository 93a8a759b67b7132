// Poisson draws per tile: variates of mean 32 and 1 by tables of tails, the rest of the mean by thinning one of them.
#include <algorithm>

#include "philox.h"
#include "tiles.h"

namespace sparseprune {
namespace {

constexpr int ONE = 20, MANY = 96;  // entries of the tables for mean 1 and, after it, mean 32

struct Source {
  const uint64_t* tails;
  uint64_t seed;
  uint32_t stream;
};

// n[i] = number of tails above u[i].
CLONES void variates(const uint64_t* u, const uint64_t* tails, int entries, uint64_t* n) {
  uint64_t above[BATCH] = {};
  for (int k = 0; k < entries; ++k) {
    const uint64_t tail = tails[k];
    for (int i = 0; i < BATCH; ++i) above[i] += u[i] < tail;
  }
  for (int i = 0; i < BATCH; ++i) n[i] = above[i];
}

// How many of the variate's units stay, each with probability fraction / 2^62.
int64_t thin(int64_t variate, uint64_t fraction, uint32_t tile, const Source& s) {
  int64_t kept = 0;
  for (int64_t x = 0; x < variate; ++x) kept += random_bits(x, tile, POISSON, 1, s.seed, s.stream) >> 2 < fraction;
  return kept;
}

// Poisson(whole + fraction / 2^62).
int64_t count(int64_t whole, uint64_t fraction, uint32_t tile, const Source& s) {
  if (whole == 0 && fraction == 0) return 0;
  const int64_t many = whole / 32, last = many + whole % 32;
  uint64_t u[BATCH], n[BATCH];
  int64_t result = 0;
  for (int64_t x = 0; x <= last; x += BATCH) {
    random_batch(x, tile, POISSON, s.seed, s.stream, u);
    const auto split = std::clamp<int64_t>(many - x, 0, BATCH), end = std::min<int64_t>(last - x, BATCH);
    if (split > 0) {
      variates(u, s.tails + ONE, MANY, n);
      for (int64_t i = 0; i < split; ++i) result += n[i];
    }
    if (split < BATCH) {
      variates(u, s.tails, ONE, n);
      for (int64_t i = split; i < end; ++i) result += n[i];
      if (end < BATCH) result += thin(n[end], fraction, tile, s);
    }
  }
  return result;
}

Tensor poisson_counts_cpu(Tensor whole, Tensor fraction, Tensor ids, Tensor tails, int64_t seed, int64_t stream) {
  const Source source{static_cast<const uint64_t*>(tails.data_ptr()), static_cast<uint64_t>(seed),
                      static_cast<uint32_t>(stream)};
  Tensor result = torch::stable::new_empty(whole, {whole.numel()}, ScalarType::Long);
  const auto *wholes = static_cast<const int64_t*>(whole.data_ptr()), *tiles = static_cast<const int64_t*>(ids.data_ptr());
  const auto* fractions = static_cast<const uint64_t*>(fraction.data_ptr());
  auto* counts = static_cast<int64_t*>(result.data_ptr());
  torch::stable::parallel_for(0, whole.numel(), 16, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      counts[b] = count(wholes[b], fractions[b], static_cast<uint32_t>(tiles[b]), source);
    }
  });
  return result;
}

}  // namespace
}  // namespace sparseprune

STABLE_TORCH_LIBRARY_IMPL(sparseprune, CPU, m) { m.impl("poisson_counts", TORCH_BOX(&sparseprune::poisson_counts_cpu)); }
