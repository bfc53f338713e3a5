// Dual averaging over 16M parameters: bound by memory, 5 streams of them.
#include "benchmark/benchmark.h"
#include "kernels/optim/dual_averaging.h"
#include "kernels/testing/host_tensor.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

void BM_DualAveraging(benchmark::State& state) {
  constexpr int64_t kCount = int64_t{1} << 24;
  Stream stream(static_cast<int>(state.range(0)));
  const HostTensor weight(DType::kF32, {kCount}), anchor(DType::kF32, {kCount}), dual(DType::kF32, {kCount});
  const HostTensor gradient = HostTensor::Filled(DType::kF32, {kCount}, 1e-6);
  for (auto _ : state) {
    DualAveraging({.weight = weight, .anchor = anchor, .dual = dual, .gradient = gradient, .eta = 0.5f, .gamma = 0.5f},
                  stream);
  }
  state.counters["bytes/s"] =
      benchmark::Counter(static_cast<double>(5 * weight.view().bytes()), benchmark::Counter::kIsIterationInvariantRate);
}
BENCHMARK(BM_DualAveraging)->Arg(1)->Arg(2)->UseRealTime()->Unit(benchmark::kMillisecond)->MinTime(0.2);

}  // namespace
}  // namespace trainyard::kernels
