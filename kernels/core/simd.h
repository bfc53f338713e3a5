// TY_SIMD before a function: the compiler makes it twice, for AVX2 and for AVX-512, and the loader picks by CPU.
// Plain loops inside vectorise; templates they call must be TY_INLINE so that they are compiled for the wider unit
// too. A reduction that must give the same bits on every CPU keeps a fixed number of partial sums (kLanes), added in
// a fixed order at the end.
#pragma once

// Sanitizers run before they are set up if the loader calls an instrumented resolver.
#if defined(TY_SANITIZED) || defined(__clang__) || defined(__CUDACC__)
#define TY_SIMD
#else
#define TY_SIMD __attribute__((target_clones("arch=x86-64-v4", "default")))
#endif

// What ops' formulas are made of: for the CPU's loops and CUDA's kernels alike.
#if defined(__CUDACC__)
#define TY_INLINE inline __host__ __device__ __attribute__((always_inline))
#else
#define TY_INLINE inline __attribute__((always_inline))
#endif
// The same for a lambda, after its parameters: [&](int i) TY_INLINE_LAMBDA { ... }.
#define TY_INLINE_LAMBDA __attribute__((always_inline))

namespace trainyard::kernels {

inline constexpr int kLanes = 16;

}  // namespace trainyard::kernels
