// SGD with momentum over 16M parameters: bound by memory, 5 streams of them.
#include "benchmark/benchmark.h"
#include "kernels/optim/sgd.h"
#include "kernels/testing/host_tensor.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

void BM_Sgd(benchmark::State& state, DType dtype, Rounding rounding) {
  constexpr int64_t kCount = int64_t{1} << 24;
  Stream stream(static_cast<int>(state.range(0)));
  const HostTensor param = HostTensor::Filled(dtype, {kCount}, 1);
  const HostTensor grad = HostTensor::Filled(dtype, {kCount}, 0.5);
  const HostTensor velocity(dtype, {kCount});
  SgdArgs args = {.param = param, .grad = grad, .velocity = velocity, .lr = 1e-6f, .momentum = 0.9f};
  args.rounding = rounding;
  for (auto _ : state) Sgd(args, stream);
  state.counters["bytes/s"] =
      benchmark::Counter(static_cast<double>(5 * param.view().bytes()), benchmark::Counter::kIsIterationInvariantRate);
}

void Threads(benchmark::internal::Benchmark* bench) {
  bench->Arg(1)->Arg(2)->UseRealTime()->Unit(benchmark::kMillisecond)->MinTime(0.2);
}
BENCHMARK_CAPTURE(BM_Sgd, f32, DType::kF32, Rounding::kNearestEven)->Apply(Threads);
BENCHMARK_CAPTURE(BM_Sgd, bf16_stochastic, DType::kBF16, Rounding::kStochastic)->Apply(Threads);

}  // namespace
}  // namespace trainyard::kernels
