// Arguments: rows, width, threads.
#include "kernels/pointwise/swiglu.h"
#include "kernels/testing/bench.h"
#include "kernels/testing/host_tensor.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

void BM_SwigluForward(benchmark::State& state, DType dtype) {
  Stream stream(static_cast<int>(state.range(2)));
  const HostTensor gate_up(dtype, {state.range(0), 2 * state.range(1)});
  const HostTensor y(dtype, {state.range(0), state.range(1)});
  for (auto _ : state) SwigluForward({.gate_up = gate_up, .y = y}, stream);
  testing::SetRates(state, 3.0 * static_cast<double>(y.view().bytes()), 20.0 * static_cast<double>(y.view().size()));
}

void BM_SwigluBackward(benchmark::State& state, DType dtype) {
  Stream stream(static_cast<int>(state.range(2)));
  const HostTensor gate_up(dtype, {state.range(0), 2 * state.range(1)});
  const HostTensor dy(dtype, {state.range(0), state.range(1)});
  for (auto _ : state) SwigluBackward({.gate_up = gate_up, .dy = dy, .dgate_up = gate_up}, stream);
  testing::SetRates(state, 5.0 * static_cast<double>(dy.view().bytes()), 25.0 * static_cast<double>(dy.view().size()));
}

void Shapes(benchmark::internal::Benchmark* bench) {
  for (int64_t threads : {1, 2}) bench->Args({4096, 1408, threads});
  bench->UseRealTime();
}

BENCHMARK_CAPTURE(BM_SwigluForward, f32, DType::kF32)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_SwigluForward, bf16, DType::kBF16)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_SwigluBackward, f32, DType::kF32)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_SwigluBackward, bf16, DType::kBF16)->Apply(Shapes);

}  // namespace
}  // namespace trainyard::kernels
