// Arguments: elements, threads.
#include "kernels/quant/cast.h"
#include "kernels/testing/bench.h"
#include "kernels/testing/host_tensor.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

void BM_Narrow(benchmark::State& state, DType dtype, Rounding rounding) {
  Stream stream(static_cast<int>(state.range(1)));
  const HostTensor x = HostTensor::Normal(DType::kF32, {state.range(0)}, 1);
  const HostTensor y(dtype, {state.range(0)});
  for (auto _ : state) Narrow({.x = x, .y = y, .rounding = rounding}, stream);
  testing::SetRates(state, static_cast<double>(x.view().bytes() + y.view().bytes()), 0);
}

void BM_Widen(benchmark::State& state, DType dtype) {
  Stream stream(static_cast<int>(state.range(1)));
  const HostTensor x(dtype, {state.range(0)});
  const HostTensor y(DType::kF32, {state.range(0)});
  for (auto _ : state) Widen({.x = x, .y = y}, stream);
  testing::SetRates(state, static_cast<double>(x.view().bytes() + y.view().bytes()), 0);
}

void Shapes(benchmark::internal::Benchmark* bench) {
  for (int64_t threads : {1, 2}) bench->Args({1 << 20, threads});
  bench->UseRealTime();
}

BENCHMARK_CAPTURE(BM_Narrow, bf16_nearest, DType::kBF16, Rounding::kNearestEven)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_Narrow, f16_nearest, DType::kF16, Rounding::kNearestEven)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_Narrow, e4m3_nearest, DType::kF8E4M3, Rounding::kNearestEven)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_Narrow, bf16_stochastic, DType::kBF16, Rounding::kStochastic)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_Narrow, e4m3_stochastic, DType::kF8E4M3, Rounding::kStochastic)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_Widen, f16, DType::kF16)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_Widen, e4m3, DType::kF8E4M3)->Apply(Shapes);

}  // namespace
}  // namespace trainyard::kernels
