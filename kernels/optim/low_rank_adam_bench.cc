// Arguments: elements, threads. Three reads and three writes an element.
#include "kernels/optim/low_rank_adam.h"
#include "kernels/testing/bench.h"
#include "kernels/testing/host_tensor.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

void BM_LowRankAdam(benchmark::State& state) {
  Stream stream(static_cast<int>(state.range(1)));
  const HostTensor a = HostTensor::Normal(DType::kF32, {state.range(0)}, 1);
  const HostTensor m(DType::kF32, {state.range(0)}), v(DType::kF32, {state.range(0)});
  LowRankAdamArgs args = {.a = a, .m = m, .v = v};
  for (auto _ : state) {
    LowRankAdam(args, stream);
    ++args.step;
  }
  testing::SetRates(state, 24.0 * static_cast<double>(state.range(0)), 0);
}
BENCHMARK(BM_LowRankAdam)->Args({1 << 16, 1})->Args({1 << 22, 1})->Args({1 << 22, 2})->UseRealTime();

}  // namespace
}  // namespace trainyard::kernels
