// Optimistic Adam over 16M parameters: bound by memory, 9 streams of them.
#include "benchmark/benchmark.h"
#include "kernels/optim/optimistic_adam.h"
#include "kernels/testing/host_tensor.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

void BM_OptimisticAdam(benchmark::State& state) {
  constexpr int64_t kCount = int64_t{1} << 24;
  Stream stream(static_cast<int>(state.range(0)));
  const HostTensor weight(DType::kF32, {kCount}), m(DType::kF32, {kCount}), v(DType::kF32, {kCount});
  const HostTensor previous(DType::kF32, {kCount}), gradient = HostTensor::Filled(DType::kF32, {kCount}, 0.5);
  OptimisticAdamArgs args = {.weight = weight, .gradient = gradient, .m = m, .v = v, .previous = previous, .lr = 1e-5f};
  for (auto _ : state) {
    OptimisticAdam(args, stream);
    ++args.step;
  }
  state.counters["bytes/s"] =
      benchmark::Counter(static_cast<double>(9 * weight.view().bytes()), benchmark::Counter::kIsIterationInvariantRate);
}
BENCHMARK(BM_OptimisticAdam)->Arg(1)->Arg(2)->UseRealTime()->Unit(benchmark::kMillisecond)->MinTime(0.2);

}  // namespace
}  // namespace trainyard::kernels
