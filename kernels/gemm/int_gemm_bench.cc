// Arguments: m, n, k, threads. GOP/s (two operations a product) beside the f32 Gemm of the same shape.
#include <algorithm>
#include <string>

#include "kernels/gemm/gemm.h"
#include "kernels/gemm/int_gemm.h"
#include "kernels/gemm/int_gemm_internal.h"
#include "kernels/testing/bench.h"
#include "kernels/testing/host_tensor.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

void Rates(benchmark::State& state, double bytes) {
  testing::SetRates(state, bytes,
                    2 * static_cast<double>(state.range(0)) * static_cast<double>(state.range(1)) *
                        static_cast<double>(state.range(2)));
}

HostTensor Codes(int64_t rows, int64_t bytes) {
  HostTensor codes(DType::kU8, {rows, bytes});
  for (int64_t i = 0; i < rows * bytes; ++i) codes.as<uint8_t>()[i] = static_cast<uint8_t>(i * 37);
  return codes;
}

void RunInt(benchmark::State& state, const internal::IntKernel& kernel, bool packed) {
  Stream stream(static_cast<int>(state.range(3)));
  const int64_t bytes = packed ? (state.range(2) + 1) / 2 : state.range(2);
  const HostTensor a = Codes(state.range(0), bytes);
  const HostTensor b = Codes(state.range(1), bytes);
  const HostTensor c(DType::kI32, {state.range(0), state.range(1)});
  for (auto _ : state) {
    internal::IntGemmWith(
        kernel,
        {.a = {.codes = a, .packed = packed}, .b = {.codes = b, .packed = packed}, .depth = state.range(2), .c = c},
        stream);
  }
  state.SetLabel(kernel.name);
  Rates(state, static_cast<double>(a.view().bytes() + b.view().bytes() + c.view().bytes()));
}

void BM_IntGemm(benchmark::State& state, bool packed) {
  RunInt(state, internal::FastestIntKernel({.codes = {}, .packed = packed}), packed);
}

// The baseline's instructions, whatever the CPU.
void BM_IntGemmAvx2(benchmark::State& state, bool packed) {
  const std::string name = packed ? "avx2_int4" : "avx2";
  for (const internal::IntKernel& kernel : internal::AllIntKernels()) {
    if (kernel.name == name) return RunInt(state, kernel, packed);
  }
  state.SkipWithError("no AVX2 here");
}

void BM_IntGridLinear(benchmark::State& state) {
  Stream stream(static_cast<int>(state.range(3)));
  const int64_t m = state.range(0);
  const int64_t n = state.range(1);
  const HostTensor a = Codes(m, state.range(2));
  const HostTensor b = Codes(n, state.range(2));
  const HostTensor steps = HostTensor::Filled(DType::kF32, {std::max(m, n)}, 0.01);
  const HostTensor sums(DType::kI32, {std::max(m, n)});
  const HostTensor y(DType::kF32, {m, n});
  for (auto _ : state) {
    IntGridLinear({.a = {.codes = a},
                   .b = {.codes = b},
                   .depth = state.range(2),
                   .a_steps = steps.view().Slice(0, m),
                   .b_steps = steps.view().Slice(0, n),
                   .a_sums = sums.view().Slice(0, m),
                   .b_sums = sums.view().Slice(0, n),
                   .y = y},
                  stream);
  }
  Rates(state, static_cast<double>(a.view().bytes() + b.view().bytes() + y.view().bytes()));
}

void BM_GemmF32(benchmark::State& state) {
  Stream stream(static_cast<int>(state.range(3)));
  const HostTensor a(DType::kF32, {state.range(0), state.range(2)});
  const HostTensor b(DType::kF32, {state.range(1), state.range(2)});
  const HostTensor c(DType::kF32, {state.range(0), state.range(1)});
  for (auto _ : state) Gemm({.a = a, .b = b, .c = c, .transpose_b = true}, stream);
  Rates(state, static_cast<double>(a.view().bytes() + b.view().bytes() + c.view().bytes()));
}

void Shapes(benchmark::internal::Benchmark* bench) {
  for (int64_t threads : {1, 2}) {
    bench->Args({1024, 1024, 1024, threads})->Args({2048, 2048, 512, threads})->Args({1, 2048, 2048, threads});
  }
  bench->UseRealTime();
}

BENCHMARK(BM_GemmF32)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_IntGemm, int8, false)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_IntGemm, int4, true)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_IntGemmAvx2, int8, false)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_IntGemmAvx2, int4, true)->Apply(Shapes);
BENCHMARK(BM_IntGridLinear)->Apply(Shapes);

}  // namespace
}  // namespace trainyard::kernels
