// Compiles the file KERNELS once per instruction set, in the namespaces avx512, avx2 (where there are such) and plain.
// (prfchw: does nothing on processors that are without.)
#include "simd.h"

#ifdef TARGET
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi,bmi2,prfchw")
#define ISA_BYTES 64
namespace sparseprune::avx512 {
#include "vec.h"
#include KERNELS
}  // namespace sparseprune::avx512
#undef ISA_BYTES
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx2,fma,bmi,bmi2,prfchw")
#define ISA_BYTES 32
namespace sparseprune::avx2 {
#include "vec.h"
#include KERNELS
}  // namespace sparseprune::avx2
#undef ISA_BYTES
#pragma GCC pop_options
#endif

#define ISA_BYTES 16
namespace sparseprune::plain {
#include "vec.h"
#include KERNELS
}  // namespace sparseprune::plain
#undef ISA_BYTES
#undef KERNELS
