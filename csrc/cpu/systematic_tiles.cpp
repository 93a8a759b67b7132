// Systematic counts: every positive score owns a length, and marks at equal distances are counted in it.
#include <algorithm>
#include <cmath>

#include "quantize.h"
#include "wide.h"

namespace sparseprune {
namespace {

constexpr int OWNED = 48;  // sums of q are below 2^43: the number of positive scores fits above them

template <class V>
struct Tile {
  V v[TILE], m[TILE];
  int32_t q[TILE], counts[TILE];
  int64_t sums[TILE], ends[TILE + 1];
};

// Where a tile lies on the line of all lengths, and how its own length is shared.
struct Place {
  int64_t begin, length;
  uint64_t gain;
  int shift;
};

// Inclusive sums of q and, in the same additions, of the positive scores; returns the last sum of q.
CLONES int64_t fill_sums(const int32_t* q, int64_t* sums) {
  int64_t sum = 0;
  for (int i = 0; i < TILE; ++i) sums[i] = sum += q[i] + (static_cast<int64_t>(q[i] > 0) << OWNED);
  return sum & ((int64_t{1} << OWNED) - 1);
}

// Where each element ends: at the share sum gain >> shift of the tile's length, and 1 for each positive score so far.
template <bool FAR>
[[gnu::always_inline]] inline void fill_ends_at(const int64_t* sums, int64_t mass, const Place& place, int64_t* ends) {
  const Place at = place;
  for (int i = 0; i < TILE; ++i) {
    const int64_t sum = sums[i] & ((int64_t{1} << OWNED) - 1);
    const Wide product = wide_product(static_cast<uint64_t>(sum), at.gain);
    const uint64_t share = FAR ? product.high >> (at.shift - 64)
                               : product.high << 1 << (63 - at.shift) | product.low >> at.shift;
    ends[i + 1] = at.begin + (sums[i] >> OWNED) + (sum == mass ? at.length : static_cast<int64_t>(share));
  }
}
CLONES void fill_ends(const int64_t* sums, int64_t mass, const Place& place, int64_t* ends) {
  ends[0] = place.begin;
  place.shift < 64 ? fill_ends_at<false>(sums, mass, place, ends) : fill_ends_at<true>(sums, mass, place, ends);
}

CLONES void count_marks(const int64_t* ends, int64_t start, int bits, int32_t* counts) {
  for (int i = 0; i < TILE; ++i) {
    counts[i] = static_cast<int32_t>(((ends[i + 1] + start) >> bits) - ((ends[i] + start) >> bits));
  }
}

// +0 where the count is 0; only there the length can be 0, and then does not matter.
template <class V>
inline void all_multipliers(const int32_t* counts, const int64_t* ends, double distance, V* m) {
  for (int i = 0; i < TILE; ++i) {
    const double length = static_cast<double>(std::max<int64_t>(ends[i + 1] - ends[i], 1));
    m[i] = static_cast<V>((static_cast<double>(counts[i]) * distance) / length);
  }
}
CLONES void multipliers(const int32_t* counts, const int64_t* ends, double distance, double* m) {
  all_multipliers(counts, ends, distance, m);
}
CLONES void multipliers(const int32_t* counts, const int64_t* ends, double distance, float* m) {
  all_multipliers(counts, ends, distance, m);
}

struct Table {
  const int32_t* exponent;
  const int64_t *begin, *length, *gain, *shift;

  Place operator[](int64_t b) const {
    return {begin[b], length[b], static_cast<uint64_t>(gain[b]), static_cast<int>(shift[b])};
  }
};

template <class V>
void count_all(const Vector& vector, const Table& table, int64_t start, int bits, Output output) {
  for_each_tile<Tile<V>>(vector.tiles(), [&](int64_t b, Tile<V>& t) {
    vector.load(b, t.v);
    quantize(t.v, table.exponent[b], t.q);
    const int64_t mass = fill_sums(t.q, t.sums);
    if (mass > 0) {
      fill_ends(t.sums, mass, table[b], t.ends);
      count_marks(t.ends, start, bits, t.counts);
      if (output == M || output == WEIGHTS) multipliers(t.counts, t.ends, std::ldexp(1.0, bits), t.m);
    } else {
      std::fill(t.counts, t.counts + TILE, 0);
      std::fill(t.m, t.m + TILE, V{0});
    }
    vector.store(b, output, t.m, t.counts);
  });
}

void systematic_tiles_cpu(std::vector<Tensor> scores, std::vector<Tensor> factors, int64_t transform, Tensor exponents,
                          Tensor begins, Tensor lengths, Tensor gains, Tensor shifts, int64_t start, int64_t bits,
                          int64_t output, std::vector<Tensor> weights, std::vector<Tensor> out) {
  const Vector vector(scores, factors, transform, weights, out);
  const Table table{static_cast<const int32_t*>(exponents.data_ptr()), static_cast<const int64_t*>(begins.data_ptr()),
                    static_cast<const int64_t*>(lengths.data_ptr()), static_cast<const int64_t*>(gains.data_ptr()),
                    static_cast<const int64_t*>(shifts.data_ptr())};
  const auto count_as = vector.fits_float() ? count_all<float> : count_all<double>;
  count_as(vector, table, start, static_cast<int>(bits), static_cast<Output>(output));
}

}  // namespace
}  // namespace sparseprune

STABLE_TORCH_LIBRARY_IMPL(sparseprune, CPU, m) {
  m.impl("systematic_tiles", TORCH_BOX(&sparseprune::systematic_tiles_cpu));
}
