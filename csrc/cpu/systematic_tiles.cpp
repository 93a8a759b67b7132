// Systematic counts: every positive score owns a length, and marks at equal distances are counted in it.
#include <algorithm>

#include "quantize.h"
#include "wide.h"

namespace sparseprune {
namespace {

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

// ends[i + 1] = sums[i] gain >> shift.
CLONES void share(const int64_t* sums, uint64_t gain, int shift, int64_t* ends) {
  if (shift < 64) {
    for (int i = 0; i < TILE; ++i) {
      const Wide product = wide_product(static_cast<uint64_t>(sums[i]), gain);
      ends[i + 1] = static_cast<int64_t>(product.high << 1 << (63 - shift) | product.low >> shift);
    }
  } else {
    for (int i = 0; i < TILE; ++i) {
      ends[i + 1] = static_cast<int64_t>(wide_product(static_cast<uint64_t>(sums[i]), gain).high >> (shift - 64));
    }
  }
}

// Where each element ends: the share of what is before it, and 1 for each positive score. False: there is none.
bool fill_ends(const int32_t* q, const Place& place, int64_t* sums, int64_t* ends) {
  int64_t sum = 0;
  for (int i = 0; i < TILE; ++i) sums[i] = sum += q[i];
  if (sum == 0) return false;
  share(sums, place.gain, place.shift, ends);
  for (int i = TILE - 1; i >= 0 && sums[i] == sum; --i) ends[i + 1] = place.length;
  int64_t before = ends[0] = place.begin;
  for (int i = 0; i < TILE; ++i) ends[i + 1] += before += q[i] > 0;
  return true;
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
    if (fill_ends(t.q, table[b], t.sums, t.ends)) {
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
