// Counters of a benchmark, so that a number can be compared with what the hardware can do: bytes/s against a copy,
// FLOP/s against GEMM. Header only, for the <op>_bench programs.
#pragma once

#include "benchmark/benchmark.h"

namespace trainyard::kernels::testing {

// Bytes the op must read and write, and floating-point operations it does, in one iteration.
inline void SetRates(benchmark::State& state, double bytes, double flops) {
  const double iterations = static_cast<double>(state.iterations());
  state.counters["bytes/s"] = benchmark::Counter(bytes * iterations, benchmark::Counter::kIsRate);
  state.counters["FLOP/s"] = benchmark::Counter(flops * iterations, benchmark::Counter::kIsRate);
}

}  // namespace trainyard::kernels::testing
