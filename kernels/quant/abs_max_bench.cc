// Arguments: elements, threads.
#include "kernels/quant/abs_max.h"
#include "kernels/testing/bench.h"
#include "kernels/testing/host_tensor.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

void BM_AbsMax(benchmark::State& state, DType dtype) {
  Stream stream(static_cast<int>(state.range(1)));
  const HostTensor x = HostTensor::Normal(dtype, {state.range(0)}, 1);
  const HostTensor y(DType::kF32, {1});
  for (auto _ : state) AbsMax({.x = x, .y = y}, stream);
  testing::SetRates(state, static_cast<double>(x.view().bytes()), 0);
}

BENCHMARK_CAPTURE(BM_AbsMax, f32, DType::kF32)->Args({1 << 20, 1})->Args({1 << 20, 2})->UseRealTime();
BENCHMARK_CAPTURE(BM_AbsMax, bf16, DType::kBF16)->Args({1 << 20, 1})->UseRealTime();

}  // namespace
}  // namespace trainyard::kernels
