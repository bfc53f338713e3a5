// Arguments: rows, cols, lines taken, threads.
#include "kernels/testing/bench.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/transform/take_lines.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

void BM_TakeLines(benchmark::State& state, int axis) {
  Stream stream(static_cast<int>(state.range(3)));
  const int64_t taken = state.range(2);
  const HostTensor x = HostTensor::Normal(DType::kF32, {state.range(0), state.range(1)}, 1);
  std::vector<double> list;
  for (int64_t q = 0; q < taken; ++q) list.push_back(static_cast<double>(q * state.range(axis) / taken));
  const HostTensor indices = HostTensor::Of(DType::kI32, {taken}, list);
  const HostTensor y(DType::kF32, {axis == 0 ? taken : state.range(0), axis == 1 ? taken : state.range(1)});
  for (auto _ : state) TakeLines({.x = x, .indices = indices, .y = y, .axis = axis}, stream);
  testing::SetRates(state, 2.0 * static_cast<double>(y.view().bytes()), 0);
}

void Shapes(benchmark::internal::Benchmark* bench) {
  bench->Args({1024, 1024, 64, 1})->Args({1024, 1024, 512, 1})->Args({4096, 4096, 512, 2})->UseRealTime();
}
BENCHMARK_CAPTURE(BM_TakeLines, columns, 1)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_TakeLines, rows, 0)->Apply(Shapes);

}  // namespace
}  // namespace trainyard::kernels
