// Draws per tile: a binary heap over the tiles whose every node splits its draws by an exact binomial.
#include <algorithm>
#include <bit>

#include "philox.h"
#include "tiles.h"

namespace sparseprune {
namespace {

constexpr int64_t CHUNK = 1 << 14;  // trials of a binomial that share bit planes
constexpr int64_t CALL = 128;  // bits of one call

struct Node {
  uint32_t id;
  uint64_t part, whole;  // probability of the left child
};

// Ones among the first `bits` bits of the numbers u, low bit first.
CLONES int64_t ones_of(const uint64_t* u, int64_t bits) {
  int64_t ones = 0;
  for (; bits >= 64; bits -= 64) ones += std::popcount(*u++);
  return bits == 0 ? ones : ones + std::popcount(*u << (64 - bits));
}

// Ones among the first `bits` bits of the calls c0, c0 + 1, ...: two numbers each.
int64_t count_ones(uint32_t c0, uint32_t node, uint32_t stream, uint32_t purpose, uint64_t seed, int64_t bits) {
  uint64_t u[BATCH];
  int64_t ones = 0, x = 2 * int64_t{c0};
  for (; bits > CALL; bits -= 64 * BATCH, x += BATCH) {
    random_batch(x, node, purpose, seed, stream, u);
    ones += ones_of(u, std::min<int64_t>(bits, 64 * BATCH));
  }
  if (bits <= 0) return ones;
  Philox<1> call;  // most planes of a binomial: a batch would be waste where there is no AVX-512
  call(static_cast<uint32_t>(x >> 1), node, stream, purpose, seed);
  for (int i = 0; i < 2; ++i) u[i] = uint64_t{call.words[2 * i][0]} | uint64_t{call.words[2 * i + 1][0]} << 32;
  return ones + ones_of(u, bits);
}

// Binomial(left, part/whole): bit planes of uniforms against the binary digits of part/whole.
int64_t binomial_chunk(const Node& node, uint32_t h, int64_t left, uint64_t seed, uint32_t stream) {
  uint64_t a = node.part;
  int64_t result = 0;
  for (uint32_t plane = 0; left > 0 && a > 0; ++plane) {
    a *= 2;
    const bool bit = a >= node.whole;
    if (bit) a -= node.whole;
    const int64_t ones = count_ones(128 * h, node.id, stream, NODE + 256 * plane, seed, left);
    if (bit) result += ones;
    left = bit ? left - ones : ones;
  }
  return result;
}

// Which nodes of the heap have a wanted leaf below them.
std::vector<uint8_t> wanted_nodes(const Tensor& wanted, int64_t tiles, int64_t leaves) {
  std::vector<uint8_t> wants(2 * leaves, wanted.numel() == 0);
  if (wanted.numel() == 0) return wants;
  std::copy_n(static_cast<const uint8_t*>(wanted.data_ptr()), tiles, wants.begin() + leaves);
  for (int64_t i = leaves - 1; i > 0; --i) wants[i] = wants[2 * i] | wants[2 * i + 1];
  return wants;
}

Tensor split_draws_cpu(Tensor aligned, Tensor wanted, int64_t draws, int64_t seed, int64_t stream) {
  const int64_t tiles = aligned.numel();
  int64_t leaves = 1;
  while (leaves < tiles) leaves *= 2;
  std::vector<uint64_t> mass(2 * leaves, 0);  // a heap: node i has children 2 i and 2 i + 1
  std::copy_n(static_cast<const int64_t*>(aligned.data_ptr()), tiles, mass.begin() + leaves);
  for (int64_t i = leaves - 1; i > 0; --i) mass[i] = mass[2 * i] + mass[2 * i + 1];

  const std::vector<uint8_t> wants = wanted_nodes(wanted, tiles, leaves);
  std::vector<int64_t> count(2 * leaves, 0), first, part;
  count[1] = wants[1] ? draws : 0;
  for (int64_t level = 1; level < leaves; level *= 2) {
    // The level's chunks are spread over the threads: near the root one node has most of the work.
    first.assign(level + 1, 0);
    for (int64_t i = 0; i < level; ++i) first[i + 1] = first[i] + (count[level + i] + CHUNK - 1) / CHUNK;
    part.assign(first[level], 0);
    torch::stable::parallel_for(0, first[level], 8, [&](int64_t begin, int64_t end) {
      int64_t i = std::upper_bound(first.begin(), first.end(), begin) - first.begin() - 1;
      for (int64_t c = begin; c < end; ++c) {
        while (first[i + 1] <= c) ++i;
        const int64_t h = c - first[i], id = level + i, left = std::min(CHUNK, count[id] - h * CHUNK);
        const Node node{static_cast<uint32_t>(id), mass[2 * id], mass[id]};
        part[c] = node.part == node.whole
                      ? left
                      : binomial_chunk(node, static_cast<uint32_t>(h), left, static_cast<uint64_t>(seed),
                                       static_cast<uint32_t>(stream));
      }
    });
    for (int64_t i = 0; i < level; ++i) {
      int64_t left = 0;
      for (int64_t c = first[i]; c < first[i + 1]; ++c) left += part[c];
      const int64_t child = 2 * (level + i);
      count[child] = wants[child] ? left : 0;
      count[child + 1] = wants[child + 1] ? count[level + i] - left : 0;
    }
  }
  Tensor result = torch::stable::new_empty(aligned, {tiles}, ScalarType::Long);
  std::copy_n(count.begin() + leaves, tiles, static_cast<int64_t*>(result.data_ptr()));
  return result;
}

}  // namespace
}  // namespace sparseprune

STABLE_TORCH_LIBRARY_IMPL(sparseprune, CPU, m) { m.impl("split_draws", TORCH_BOX(&sparseprune::split_draws_cpu)); }
