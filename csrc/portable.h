// What differs between compilers and processors.
#pragma once

#include <cstdint>

// One binary for every x86 machine: hot loops are compiled for AVX-512, AVX2 and the baseline, and chosen at load time.
// A clone inlines plain functions but never a lambda that is passed on: keep hot loops in functions of their own.
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
// The same choice where a version is written by hand: overloads in one file that differ in TARGET only.
#define TARGET(name) __attribute__((target(name)))
#else
#define CLONES
#endif

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

namespace sparseprune {

// Subnormal numbers are numbers: with DAZ an fp32 subnormal would convert to 0. Clears FTZ and DAZ, restores them at the end.
class ExactSubnormals {
 public:
#if defined(__SSE2__)
  ExactSubnormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ & ~0x8040u); }
  ~ExactSubnormals() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
#elif defined(__aarch64__)
  ExactSubnormals() {
    asm volatile("mrs %0, fpcr" : "=r"(saved_));
    asm volatile("msr fpcr, %0" ::"r"(saved_ & ~(uint64_t{1} << 24)));
  }
  ~ExactSubnormals() { asm volatile("msr fpcr, %0" ::"r"(saved_)); }

 private:
  uint64_t saved_;
#endif
};

}  // namespace sparseprune
