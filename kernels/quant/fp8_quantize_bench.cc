// Arguments: rows, columns, threads. bytes/s counts x and codes.
#include "kernels/quant/abs_max.h"
#include "kernels/quant/fp8_quantize.h"
#include "kernels/testing/bench.h"
#include "kernels/testing/host_tensor.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

void BM_Quantize(benchmark::State& state, DType dtype, Rounding rounding, bool by_row) {
  Stream stream(static_cast<int>(state.range(2)));
  const int64_t rows = state.range(0);
  const int64_t cols = state.range(1);
  const HostTensor x = HostTensor::Normal(dtype, {rows, cols}, 1);
  const HostTensor codes(DType::kF8E4M3, {rows, cols});
  const HostTensor amax(DType::kF32, {by_row ? rows : 1}), inverse(DType::kF32, {by_row ? rows : 1});
  for (auto _ : state) {
    AbsMax({.x = x, .y = amax}, stream);
    Fp8Quantize({.x = x, .amax = amax, .rounding = rounding, .codes = codes, .inverse = inverse}, stream);
  }
  testing::SetRates(state, static_cast<double>(x.view().bytes() + codes.view().bytes()), 0);
}

void Shapes(benchmark::internal::Benchmark* bench) {
  for (int64_t threads : {1, 2}) bench->Args({1024, 1024, threads});
  bench->UseRealTime();
}

BENCHMARK_CAPTURE(BM_Quantize, f32_tensor, DType::kF32, Rounding::kNearestEven, false)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_Quantize, f32_rows, DType::kF32, Rounding::kNearestEven, true)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_Quantize, bf16_tensor, DType::kBF16, Rounding::kNearestEven, false)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_Quantize, f32_rows_stochastic, DType::kF32, Rounding::kStochastic, true)->Apply(Shapes);

}  // namespace
}  // namespace trainyard::kernels
