#include "kept.h"

namespace sparseprune {

int Kept::list(int n) {
  int found = 0;
  for (int i = 0; i < n; ++i) {
    lane[found] = static_cast<uint16_t>(i);
    found += keep[i];
  }
  return found;
}

}  // namespace sparseprune
