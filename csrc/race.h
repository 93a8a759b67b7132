// Races: every element takes a random time and runs with the key value / time; the largest keys win.
#pragma once

#include <cstdint>

#include "philox.h"
#include "rescale.h"

namespace sparseprune {

// PLAIN: the value itself is the key. COINS: keys like PRIORITY_RACE, of numbers of their own; not for callers.
enum RaceKind : int64_t { PLAIN, PRIORITY_RACE, SUCCESSIVE_RACE, COINS };

constexpr int FEW = TILE / 32;  // keys of a tile that a glance may leave NEAR: for more, all are made

// Where the keys of a tile lie beside a window, as far as a glance at the random numbers tells.
struct Sides {
  enum Side : uint8_t { BELOW, NEAR, ABOVE };  // NEAR: only the key itself can tell
  uint8_t side[TILE];
  int32_t near[TILE / BATCH], above;  // how many are NEAR in each batch, and ABOVE in all

  // keep = whether ABOVE.
  void keep_above(uint8_t* keep) const;
  // f(lane) for those that are NEAR, in order.
  template <class F>
  void for_each_near(const F& f) const {
    for (int g = 0; g < TILE; g += BATCH) {
      if (near[g / BATCH] == 0) continue;
      for (int i = g; i < g + BATCH; ++i) {
        if (side[i] == NEAR) f(i);
      }
    }
  }
};

class Race {
 public:
  Race(int64_t kind, int64_t exponent, int64_t seed, int64_t stream);

  // What runs for score v. The others take scores.
  const Rescale& rescale() const { return rescale_; }
  // The keys of a tile, and of one score: bits of non-negative numbers, which sort like these.
  template <class V>
  void keys(const V* v, uint32_t tile, int64_t* key) const;
  int64_t key(double v, uint32_t tile, int lane) const;

  // Compares all keys with the window [low, high) by bounds of the times; returns how many are NEAR: all of them, with
  // nothing written, where the window is not fit for it (low not positive, or too wide).
  template <class V>
  int glance(const V* v, uint32_t tile, double low, double high, Sides& sides) const;

 private:
  int64_t kind_;
  Rescale rescale_;
  bool rescales_;
  uint64_t seed_;
  uint32_t stream_, purpose_;
};

}  // namespace sparseprune
