#include "rescale.h"

namespace sparseprune {
namespace {

template <class V>
inline int clear(V* v) {
  int32_t good = 0;
  for (int i = 0; i < TILE; ++i) {
    const bool fine = (v[i] >= 0) & (v[i] <= std::numeric_limits<V>::max());
    good += fine;
    v[i] = fine ? v[i] : V{0};
  }
  return TILE - good;
}
CLONES int clear_clones(double* v) { return clear(v); }
CLONES int clear_clones(float* v) { return clear(v); }

}  // namespace

int clear_bad(double* v) { return clear_clones(v); }
int clear_bad(float* v) { return clear_clones(v); }

}  // namespace sparseprune
