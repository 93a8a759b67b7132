// fp64 values as integer keys of the same order, and windows of keys.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "tiles.h"

namespace sparseprune {

constexpr int64_t INFINITE_KEY = 0x7FF0000000000000, LARGEST_KEY = std::numeric_limits<int64_t>::max();

// int64 key that sorts like the fp64 value (which is never -0).
inline int64_t order_key(double v) {
  int64_t key;
  std::memcpy(&key, &v, sizeof key);
  return key ^ static_cast<int64_t>(static_cast<uint64_t>(key >> 63) >> 1);
}

// The least value whose key is at least `key`, for finite values.
template <class V>
V value_of(int64_t key) {
  constexpr double INFINITE = std::numeric_limits<double>::infinity();
  if (key > INFINITE_KEY) return INFINITE;
  if (key < ~INFINITE_KEY) return -INFINITE;
  key ^= static_cast<int64_t>(static_cast<uint64_t>(key >> 63) >> 1);
  double value;
  std::memcpy(&value, &key, sizeof value);
  const V nearest = static_cast<V>(value);
  return static_cast<double>(nearest) < value ? std::nextafter(nearest, static_cast<V>(INFINITE)) : nearest;
}

// Keys [low, low + 2^(shift + bits)) in 2^bits bins.
struct Window {
  int64_t low;
  int shift, bits;

  bool everything() const { return shift + bits >= 64; }
  int64_t high() const {
    const auto room = static_cast<uint64_t>(LARGEST_KEY) - static_cast<uint64_t>(low);
    const uint64_t width = everything() ? room : uint64_t{1} << (shift + bits);
    return width < room ? static_cast<int64_t>(static_cast<uint64_t>(low) + width) : LARGEST_KEY;
  }
  uint64_t offset(int64_t key) const { return static_cast<uint64_t>(key) - static_cast<uint64_t>(low); }
  uint64_t bin(int64_t key) const { return offset(key) >> shift; }
  uint64_t last() const { return (uint64_t{1} << bits) - 1; }
};

}  // namespace sparseprune
