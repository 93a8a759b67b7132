// The instruction set of this machine.
#include <cstdlib>
#include <string_view>

#include "simd.h"

namespace sparseprune {
namespace {

Isa find_isa() {
  Isa best = PLAIN;
#ifdef TARGET
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2")) best = AVX2;
  if (best == AVX2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    best = AVX512;
  }
#endif
  const char* wanted = std::getenv("SPARSEPRUNE_ISA");
  if (wanted == nullptr) return best;
  if (std::string_view(wanted) == "plain") return PLAIN;
  return std::string_view(wanted) == "avx2" ? std::min(best, AVX2) : best;
}

}  // namespace

Isa isa() {
  static const Isa found = find_isa();
  return found;
}

}  // namespace sparseprune
