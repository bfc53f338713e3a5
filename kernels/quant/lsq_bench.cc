// Arguments: rows, columns, threads. bytes/s counts x and the gradient once.
#include "kernels/quant/lsq.h"
#include "kernels/testing/bench.h"
#include "kernels/testing/host_tensor.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

void BM_StepGradient(benchmark::State& state) {
  Stream stream(static_cast<int>(state.range(2)));
  const int64_t rows = state.range(0), cols = state.range(1);
  const HostTensor x = HostTensor::Normal(DType::kF32, {rows, cols}, 1);
  const HostTensor gradient = HostTensor::Normal(DType::kF32, {rows, cols}, 2);
  const HostTensor step = HostTensor::Filled(DType::kF32, {1}, 0.3), step_gradient(DType::kF32, {1});
  const HostTensor workspace(DType::kU8, {LsqWorkspaceBytes(rows)});
  for (auto _ : state) {
    LsqStepGradient(
        {.x = x, .step = step, .gradient = gradient, .step_gradient = step_gradient, .workspace = workspace}, stream);
  }
  testing::SetRates(state, static_cast<double>(x.view().bytes() + gradient.view().bytes()), 0);
}

BENCHMARK(BM_StepGradient)->Args({1024, 1024, 1})->Args({1024, 1024, 2})->UseRealTime();

}  // namespace
}  // namespace trainyard::kernels
