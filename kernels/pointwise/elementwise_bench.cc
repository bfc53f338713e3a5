// Arguments: rows, cols, threads. Convert between equal dtypes is the copy that the others are compared with.
#include "kernels/pointwise/elementwise.h"
#include "kernels/testing/bench.h"
#include "kernels/testing/host_tensor.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

void BM_Convert(benchmark::State& state, DType from, DType to) {
  Stream stream(static_cast<int>(state.range(2)));
  const HostTensor x(from, {state.range(0), state.range(1)});
  const HostTensor y(to, {state.range(0), state.range(1)});
  for (auto _ : state) Convert({.x = x, .y = y}, stream);
  testing::SetRates(state, static_cast<double>(x.view().bytes() + y.view().bytes()), 0);
}

void BM_Add(benchmark::State& state, DType dtype) {
  Stream stream(static_cast<int>(state.range(2)));
  const HostTensor a(dtype, {state.range(0), state.range(1)});
  const HostTensor b(dtype, {state.range(0), state.range(1)});
  const HostTensor y(dtype, {state.range(0), state.range(1)});
  for (auto _ : state) Add({.a = a, .b = b, .y = y}, stream);
  testing::SetRates(state, 3.0 * static_cast<double>(y.view().bytes()), static_cast<double>(y.view().size()));
}

void BM_BiasGradient(benchmark::State& state, DType dtype) {
  Stream stream(static_cast<int>(state.range(2)));
  const HostTensor dy(dtype, {state.range(0), state.range(1)});
  const HostTensor db(DType::kF32, {state.range(1)});
  for (auto _ : state) BiasGradient({.dy = dy, .db = db}, stream);
  testing::SetRates(state, static_cast<double>(dy.view().bytes()), static_cast<double>(dy.view().size()));
}

void Shapes(benchmark::internal::Benchmark* bench) {
  for (int64_t threads : {1, 2}) bench->Args({8192, 1024, threads});
  bench->UseRealTime();
}

BENCHMARK_CAPTURE(BM_Convert, copy_f32, DType::kF32, DType::kF32)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_Convert, f32_to_bf16, DType::kF32, DType::kBF16)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_Convert, bf16_to_f32, DType::kBF16, DType::kF32)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_Add, f32, DType::kF32)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_Add, bf16, DType::kBF16)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_BiasGradient, f32, DType::kF32)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_BiasGradient, bf16, DType::kBF16)->Apply(Shapes);

}  // namespace
}  // namespace trainyard::kernels
