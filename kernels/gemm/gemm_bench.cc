// Arguments: m, n, k, threads. The plain library call, on one thread, is what Gemm is compared with.
#include "kernels/gemm/gemm.h"
#include "kernels/gemm/sgemm.h"
#include "kernels/testing/bench.h"
#include "kernels/testing/host_tensor.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

void Rates(benchmark::State& state, double element_bytes) {
  const double m = static_cast<double>(state.range(0));
  const double n = static_cast<double>(state.range(1));
  const double k = static_cast<double>(state.range(2));
  testing::SetRates(state, element_bytes * (m * k + k * n + m * n), 2 * m * n * k);
}

void BM_Gemm(benchmark::State& state, DType dtype) {
  Stream stream(static_cast<int>(state.range(3)));
  const int64_t m = state.range(0);
  const int64_t n = state.range(1);
  const int64_t k = state.range(2);
  const HostTensor a(dtype, {m, k});
  const HostTensor b(dtype, {n, k});
  const HostTensor c(dtype, {m, n});
  const HostTensor workspace(DType::kU8, {GemmWorkspaceBytes(dtype, m, n, k)});
  for (auto _ : state) Gemm({.a = a, .b = b, .c = c, .transpose_b = true, .workspace = workspace}, stream);
  Rates(state, static_cast<double>(SizeOf(dtype)));
}

void BM_PlainSgemm(benchmark::State& state) {
  const int64_t m = state.range(0);
  const int64_t n = state.range(1);
  const int64_t k = state.range(2);
  const HostTensor a(DType::kF32, {m, k});
  const HostTensor b(DType::kF32, {n, k});
  const HostTensor c(DType::kF32, {m, n});
  for (auto _ : state) {
    Sgemm({.transpose_b = true,
           .m = m,
           .n = n,
           .k = k,
           .a = a.as<float>(),
           .lda = k,
           .b = b.as<float>(),
           .ldb = k,
           .c = c.as<float>(),
           .ldc = n});
  }
  Rates(state, 4);
}

void Shapes(benchmark::internal::Benchmark* bench) {
  for (int64_t threads : {1, 2}) {
    bench->Args({1024, 512, 512, threads})->Args({2048, 2048, 512, threads})->Args({512, 8192, 512, threads});
    bench->Args({1, 2048, 2048, threads});  // one token of generation
  }
  bench->UseRealTime();
}

BENCHMARK(BM_PlainSgemm)
    ->Args({1024, 512, 512})
    ->Args({2048, 2048, 512})
    ->Args({512, 8192, 512})
    ->Args({1, 2048, 2048})
    ->UseRealTime();
BENCHMARK_CAPTURE(BM_Gemm, f32, DType::kF32)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_Gemm, bf16, DType::kBF16)->Apply(Shapes);

}  // namespace
}  // namespace trainyard::kernels
