// Arguments: elements, threads.
#include "kernels/pointwise/activation.h"
#include "kernels/testing/bench.h"
#include "kernels/testing/host_tensor.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

template <typename Run>
void Measure(benchmark::State& state, DType dtype, double tensors, double flops, const Run& run) {
  Stream stream(static_cast<int>(state.range(1)));
  const HostTensor a = HostTensor::Normal(dtype, {state.range(0)}, 1);
  const HostTensor b = HostTensor::Normal(dtype, {state.range(0)}, 2);
  for (auto _ : state) run(a, b, stream);
  testing::SetRates(state, tensors * static_cast<double>(a.view().bytes()),
                    flops * static_cast<double>(a.view().size()));
}

void BM_LeakyReluForward(benchmark::State& state, DType dtype) {
  Measure(state, dtype, 2, 1, [](const HostTensor& a, const HostTensor& b, Stream& stream) {
    LeakyReluForward({.x = a, .y = b, .slope = 0.2f}, stream);
  });
}

void BM_LeakyReluBackward(benchmark::State& state, DType dtype) {
  Measure(state, dtype, 3, 1, [](const HostTensor& a, const HostTensor& b, Stream& stream) {
    LeakyReluBackward({.y = a, .dy = b, .dx = b, .slope = 0.2f}, stream);
  });
}

void BM_TanhForward(benchmark::State& state, DType dtype) {
  Measure(state, dtype, 2, 20,
          [](const HostTensor& a, const HostTensor& b, Stream& stream) { TanhForward({.x = a, .y = b}, stream); });
}

void Shapes(benchmark::internal::Benchmark* bench) {
  for (int64_t threads : {1, 2}) bench->Args({1 << 22, threads});
  bench->UseRealTime();
}

BENCHMARK_CAPTURE(BM_LeakyReluForward, f32, DType::kF32)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_LeakyReluBackward, f32, DType::kF32)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_LeakyReluBackward, bf16, DType::kBF16)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_TanhForward, f32, DType::kF32)->Apply(Shapes);

}  // namespace
}  // namespace trainyard::kernels
