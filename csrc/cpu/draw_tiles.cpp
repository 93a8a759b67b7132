// Draws with replacement inside every tile, fused with the output.
#include <algorithm>
#include <bit>

#include "philox.h"
#include "quantize.h"
#include "wide.h"

namespace sparseprune {
namespace {

constexpr int PART = TILE / 16;
constexpr int64_t SPARSE = TILE / 2;  // draws up to which only the drawn places get a division

template <class V>
struct Tile {
  V v[TILE], m[TILE] = {};
  int32_t high[TILE];  // the leading 31 bits of the inclusive sums of q
  int32_t q[TILE], counts[TILE] = {};  // m and counts are zero between tiles
  int32_t drawn[SPARSE];
};

// What names the random numbers of a tile.
struct Source {
  uint32_t tile;
  uint64_t seed;
  uint32_t stream;
};

// The tile's mass M. A number below M is r = floor(u M / 2^64) of 64 random bits u, unless u M mod 2^64 < 2^64 mod M.
struct Range {
  explicit Range(int64_t total)
      : mass(static_cast<uint64_t>(total)), modulus((0 - mass) % mass), shift(std::max(0, static_cast<int>(std::bit_width(mass)) - 31)) {}
  uint64_t mass, modulus;
  int shift;  // r >> shift: its leading bits, at most 31
};

// Elements for BATCH random numbers by the leading bits alone; whether some of them are in doubt. Those of r lie at most 2
// above u1 M1 / 2^32, where u1 and M1 are the leading bits of u and M: an element whose sum is further above is right.
// All side by side: a sixteenth of the tile by comparison with all of them, as gathers are slow, then by halving.
CLONES bool guess(const int32_t* high, const Range& mass, const uint64_t* u, int32_t* found) {
  const Range range = mass;
  const uint64_t leading = range.mass >> range.shift;
  int32_t sought[BATCH], at[BATCH] = {};
  uint64_t rejected = 0, near = 0;
  for (int i = 0; i < BATCH; ++i) sought[i] = static_cast<int32_t>((u[i] >> 32) * leading >> 32);
  for (int i = 0; i < BATCH; ++i) rejected |= u[i] * range.mass < range.modulus;
  for (int place = PART; place < TILE; place += PART) {
    const int32_t last = high[place - 1];
    for (int i = 0; i < BATCH; ++i) at[i] += PART * (last < sought[i]);
  }
  for (int half = PART / 2; half > 0; half /= 2) {
    const int32_t* last = high + half - 1;
    for (int i = 0; i < BATCH; ++i) at[i] += half * (last[at[i]] < sought[i]);
  }
  for (int i = 0; i < BATCH; ++i) near |= high[at[i]] - sought[i] <= 2;
  for (int i = 0; i < BATCH; ++i) found[i] = at[i];
  return (rejected | near) != 0;
}

CLONES int64_t mass_of(const int32_t* q) {
  int64_t total = 0;
  for (int i = 0; i < TILE; ++i) total += q[i];
  return total;
}

CLONES void fill_high(const int32_t* q, int shift, int32_t* high) {
  int64_t sum = 0;
  for (int i = 0; i < TILE; ++i) high[i] = static_cast<int32_t>((sum += q[i]) >> shift);
}

// The element of draw j by the law; `guess` where it is surely right.
template <class V>
int element(const Tile<V>& t, const Range& range, uint64_t u, int guess, int64_t j, const Source& s) {
  Wide product = wide_product(u, range.mass);
  if (product.low >= range.modulus && t.high[guess] > static_cast<int64_t>(product.high >> range.shift)) return guess;
  for (uint32_t attempt = 1; product.low < range.modulus; ++attempt) {
    product = wide_product(random_bits(j, s.tile, DRAW, attempt, s.seed, s.stream), range.mass);
  }
  uint64_t sum = 0;
  for (int at = 0;; ++at) {
    if ((sum += t.q[at]) > product.high) return at;
  }
}

// n draws into t.counts, and into t.drawn while they are few. An element is the first whose inclusive sum exceeds r.
template <class V>
void draw(Tile<V>& t, int64_t n, const Source& source) {
  const Range range(mass_of(t.q));
  fill_high(t.q, range.shift, t.high);
  uint64_t u[BATCH];
  int32_t at[BATCH];
  for (int64_t j = 0; j < n; j += BATCH) {
    const int batch = static_cast<int>(std::min<int64_t>(BATCH, n - j));
    random_batch(j, source.tile, DRAW, source.seed, source.stream, u);
    if (guess(t.high, range, u, at)) {  // rare: q reaches 2^30 where exponents are the tiles' own
      for (int i = 0; i < batch; ++i) at[i] = element(t, range, u[i], at[i], j + i, source);
    }
    for (int i = 0; i < batch; ++i) ++t.counts[at[i]];
    if (n <= SPARSE) std::copy_n(at, batch, t.drawn + j);
  }
}

// +0 where the count is 0; q is 0 only there, and then does not matter. No branch: half of the places have a draw.
inline double multiplier(int32_t count, int32_t q, double scale) {
  return (static_cast<double>(count) * scale) / static_cast<double>(std::max(q, 1));
}

// As fp32 where no score is fp64: what `store` would round it to.
template <class V>
inline void all_multipliers(const int32_t* counts, const int32_t* q, double scale, V* m) {
  for (int i = 0; i < TILE; ++i) m[i] = static_cast<V>(multiplier(counts[i], q[i], scale));
}
CLONES void multipliers(const int32_t* counts, const int32_t* q, double scale, double* m) {
  all_multipliers(counts, q, scale, m);
}
CLONES void multipliers(const int32_t* counts, const int32_t* q, double scale, float* m) {
  all_multipliers(counts, q, scale, m);
}

CLONES void multipliers_at(const int32_t* at, int n, const int32_t* counts, const int32_t* q, double scale, double* m) {
  for (int j = 0; j < n; ++j) m[j] = multiplier(counts[at[j]], q[at[j]], scale);
}

template <class V>
void fill_multipliers(Tile<V>& t, int64_t n, double scale) {
  if (n > SPARSE) return multipliers(t.counts, t.q, scale, t.m);
  double m[SPARSE];
  multipliers_at(t.drawn, static_cast<int>(n), t.counts, t.q, scale, m);
  for (int64_t j = 0; j < n; ++j) t.m[t.drawn[j]] = static_cast<V>(m[j]);
}

struct Table {
  TileNumbers number;
  const int32_t* exponent;
  const double* scale;
  const int64_t* draws;
};

template <class V>
void draw_all(const Vector& vector, const Table& table, Output output, uint64_t seed, uint32_t stream) {
  for_each_tile<Tile<V>>(vector.tiles(), [&](int64_t b, Tile<V>& t) {
    const int64_t n = table.draws[b];
    if (n > 0) {
      vector.load(b, t.v);
      quantize(t.v, table.exponent[b], t.q);
      draw(t, n, {static_cast<uint32_t>(table.number[b]), seed, stream});
      if (output == M || output == WEIGHTS) fill_multipliers(t, n, table.scale[b]);
    }
    vector.store(b, output, t.m, t.counts);
    std::fill(t.counts, t.counts + TILE, 0);  // all: 256 lines take less than many single places
    std::fill(t.m, t.m + TILE, V{0});
  });
}

void draw_tiles_cpu(std::vector<Tensor> scores, std::vector<Tensor> factors, int64_t transform, Tensor ids,
                    Tensor exponents, Tensor scales, Tensor draws, int64_t seed, int64_t stream, int64_t output,
                    std::vector<Tensor> weights, std::vector<Tensor> out) {
  const Vector vector(scores, factors, transform, weights, out);
  const Table table{TileNumbers(ids), static_cast<const int32_t*>(exponents.data_ptr()),
                    static_cast<const double*>(scales.data_ptr()), static_cast<const int64_t*>(draws.data_ptr())};
  const auto draw_as = vector.fits_float() ? draw_all<float> : draw_all<double>;
  draw_as(vector, table, static_cast<Output>(output), static_cast<uint64_t>(seed), static_cast<uint32_t>(stream));
}

}  // namespace
}  // namespace sparseprune

STABLE_TORCH_LIBRARY_IMPL(sparseprune, CPU, m) { m.impl("draw_tiles", TORCH_BOX(&sparseprune::draw_tiles_cpu)); }
