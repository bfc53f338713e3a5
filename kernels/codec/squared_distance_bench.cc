// Arguments: elements, threads.
#include "kernels/codec/squared_distance.h"
#include "kernels/testing/bench.h"
#include "kernels/testing/host_tensor.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

void BM_SquaredDistance(benchmark::State& state) {
  Stream stream(static_cast<int>(state.range(1)));
  const HostTensor a = HostTensor::Normal(DType::kF32, {state.range(0)}, 1);
  const HostTensor b = HostTensor::Normal(DType::kF32, {state.range(0)}, 2);
  for (auto _ : state) benchmark::DoNotOptimize(SquaredDistance({a, b}, stream));
  testing::SetRates(state, static_cast<double>(a.view().bytes() + b.view().bytes()), 0);
}
BENCHMARK(BM_SquaredDistance)->Args({1 << 20, 1})->Args({1 << 20, 2})->UseRealTime();

}  // namespace
}  // namespace trainyard::kernels
