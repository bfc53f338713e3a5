// Arguments: rows, cols, group (0: none), threads.
#include "kernels/testing/bench.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/transform/transpose.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

void BM_Transpose(benchmark::State& state, DType x_dtype, DType y_dtype) {
  Stream stream(static_cast<int>(state.range(3)));
  const int64_t rows = state.range(0);
  const int64_t cols = state.range(1);
  const int64_t group = state.range(2);
  const HostTensor x = HostTensor::Normal(x_dtype, {rows, cols}, 1);
  const HostTensor y(y_dtype, {cols, rows});
  const HostTensor signs = HostTensor::Filled(DType::kF32, {group}, -1);
  for (auto _ : state) {
    Transpose({.x = x, .y = y, .group = group, .signs = group == 0 ? TensorView() : signs.view()}, stream);
  }
  testing::SetRates(state, static_cast<double>(x.view().bytes() + y.view().bytes()), 0);
}

void Shapes(benchmark::internal::Benchmark* bench) {
  for (int64_t group : {0, 32, 128}) bench->Args({2048, 1024, group, 1});
  bench->Args({2048, 1024, 128, 2})->UseRealTime();
}

BENCHMARK_CAPTURE(BM_Transpose, f32, DType::kF32, DType::kF32)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_Transpose, bf16_to_f32, DType::kBF16, DType::kF32)->Apply(Shapes);

}  // namespace
}  // namespace trainyard::kernels
