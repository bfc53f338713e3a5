// Arguments: m, n, k, threads.
#include "kernels/gemm/fp4_gemm.h"
#include "kernels/testing/bench.h"
#include "kernels/testing/host_tensor.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

void BM_Fp4Gemm(benchmark::State& state, DType scale_type) {
  Stream stream(static_cast<int>(state.range(3)));
  const int64_t m = state.range(0);
  const int64_t n = state.range(1);
  const int64_t k = state.range(2);
  const int64_t groups = k / (scale_type == DType::kF8E4M3 ? 16 : 32);
  const HostTensor a(DType::kU8, {m, k / 2});
  const HostTensor b(DType::kU8, {n, k / 2});
  const HostTensor a_scales(scale_type, {m, groups});
  const HostTensor b_scales(scale_type, {n, groups});
  const HostTensor c(DType::kBF16, {m, n});
  const HostTensor workspace(DType::kU8, {Fp4GemmWorkspaceBytes(m, n, k)});
  for (auto _ : state) {
    Fp4Gemm({.a = {.packed = a, .scales = a_scales},
             .b = {.packed = b, .scales = b_scales},
             .c = c,
             .workspace = workspace},
            stream);
  }
  const double bytes = static_cast<double>((m + n) * (k / 2 + groups) + 2 * m * n);
  testing::SetRates(state, bytes, 2 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k));
}

void Shapes(benchmark::internal::Benchmark* bench) {
  for (int64_t threads : {1, 2}) bench->Args({1024, 512, 512, threads})->Args({2048, 2048, 512, threads});
  bench->UseRealTime();
}
BENCHMARK_CAPTURE(BM_Fp4Gemm, nvfp4, DType::kF8E4M3)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_Fp4Gemm, mxfp4, DType::kU8)->Apply(Shapes);

}  // namespace
}  // namespace trainyard::kernels
