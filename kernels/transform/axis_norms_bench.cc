// Arguments: rows, cols, threads. One pass over the matrix: to be compared with the bytes/s of a copy's reads.
#include "kernels/testing/bench.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/transform/axis_norms.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

void BM_AxisNorms(benchmark::State& state, int axis, NormOrder order) {
  Stream stream(static_cast<int>(state.range(2)));
  const HostTensor x = HostTensor::Normal(DType::kF32, {state.range(0), state.range(1)}, 1);
  const HostTensor norms(DType::kF32, {state.range(axis)});
  for (auto _ : state) AxisNorms({.x = x, .norms = norms, .axis = axis, .order = order}, stream);
  const double elements = static_cast<double>(x.view().size());
  testing::SetRates(state, 4 * elements, 2 * elements);
}

void Shapes(benchmark::internal::Benchmark* bench) {
  bench->Args({256, 256, 1})->Args({1024, 1024, 1})->Args({4096, 4096, 1})->Args({4096, 4096, 2})->UseRealTime();
}

BENCHMARK_CAPTURE(BM_AxisNorms, columns_l1, 1, NormOrder::kL1)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_AxisNorms, columns_l2, 1, NormOrder::kL2)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_AxisNorms, rows_l2, 0, NormOrder::kL2)->Apply(Shapes);

}  // namespace
}  // namespace trainyard::kernels
