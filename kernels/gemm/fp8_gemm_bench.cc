// Arguments: m, n, k, threads.
#include "kernels/gemm/fp8_gemm.h"
#include "kernels/testing/bench.h"
#include "kernels/testing/host_tensor.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

void BM_Fp8Gemm(benchmark::State& state) {
  Stream stream(static_cast<int>(state.range(3)));
  const int64_t m = state.range(0);
  const int64_t n = state.range(1);
  const int64_t k = state.range(2);
  const HostTensor a(DType::kF8E4M3, {m, k});
  const HostTensor b(DType::kF8E4M3, {n, k});
  const HostTensor one = HostTensor::Filled(DType::kF32, {1}, 1);
  const HostTensor c(DType::kBF16, {m, n});
  const HostTensor workspace(DType::kU8, {Fp8GemmWorkspaceBytes(DType::kBF16, m, n, k)});
  for (auto _ : state) {
    Fp8Gemm({.a = a, .b = b, .a_inverse = one, .b_inverse = one, .c = c, .transpose_b = true, .workspace = workspace},
            stream);
  }
  const double elements = static_cast<double>(m * k + n * k + 2 * m * n);
  testing::SetRates(state, elements, 2 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k));
}

BENCHMARK(BM_Fp8Gemm)->Args({1024, 512, 512, 1})->Args({1024, 512, 512, 2})->Args({2048, 2048, 512, 2})->UseRealTime();

}  // namespace
}  // namespace trainyard::kernels
