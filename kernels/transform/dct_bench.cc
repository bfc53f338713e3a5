// Arguments: rows, cols, threads. The transform of rows (or columns) by FFT beside the product with the stored basis.
#include <cmath>

#include "kernels/testing/bench.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/transform/dct.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

// Both report the operations of the FFT's usual count, 2.5 n log2 n a row, so that their rates compare as times do.
void Rates(benchmark::State& state) {
  const double rows = static_cast<double>(state.range(0));
  const double cols = static_cast<double>(state.range(1));
  testing::SetRates(state, 8 * rows * cols, 2.5 * rows * cols * std::log2(cols));
}

void BM_DctFft(benchmark::State& state, int axis) {
  Stream stream(static_cast<int>(state.range(2)));
  const DctPlan plan(state.range(1));
  const int64_t rows = axis == 1 ? state.range(0) : state.range(1);
  const int64_t cols = axis == 1 ? state.range(1) : state.range(0);
  const HostTensor x = HostTensor::Normal(DType::kF32, {rows, cols}, 1);
  const HostTensor y(DType::kF32, {rows, cols});
  const HostTensor workspace(DType::kU8, {plan.thread_bytes() * stream.threads()});
  for (auto _ : state) DctFft({.x = x, .plan = &plan, .y = y, .axis = axis, .workspace = workspace}, stream);
  Rates(state);
}

void BM_DctMatrix(benchmark::State& state) {
  Stream stream(static_cast<int>(state.range(2)));
  const HostTensor x = HostTensor::Normal(DType::kF32, {state.range(0), state.range(1)}, 1);
  const HostTensor basis(DType::kF32, {state.range(1), state.range(1)});
  const HostTensor y(DType::kF32, {state.range(0), state.range(1)});
  DctBasis({.basis = basis}, stream);
  for (auto _ : state) DctMatrix({.x = x, .basis = basis, .y = y}, stream);
  Rates(state);
}

void Shapes(benchmark::internal::Benchmark* bench) {
  for (int64_t cols : {64, 256, 896, 1024, 1408, 4096}) bench->Args({512, cols, 1});
  bench->Args({512, 1024, 2});
  bench->UseRealTime();
}

BENCHMARK_CAPTURE(BM_DctFft, rows, 1)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_DctFft, columns, 0)->Apply(Shapes);
BENCHMARK(BM_DctMatrix)->Apply(Shapes);

}  // namespace
}  // namespace trainyard::kernels
