// Arguments: rows, cols, threads. Five steps; FLOP/s against those of gemm_bench.
#include <algorithm>

#include "kernels/optim/newton_schulz.h"
#include "kernels/testing/bench.h"
#include "kernels/testing/host_tensor.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

void BM_NewtonSchulz(benchmark::State& state, DType precision) {
  const int64_t rows = state.range(0), cols = state.range(1);
  Stream stream(static_cast<int>(state.range(2)));
  const HostTensor x = HostTensor::Normal(DType::kF32, {rows, cols}, 1);
  const HostTensor workspace(DType::kU8, {NewtonSchulzWorkspaceBytes(rows, cols, precision)});
  for (auto _ : state) NewtonSchulz({.x = x, .precision = precision, .workspace = workspace}, stream);
  const double small = static_cast<double>(std::min(rows, cols)), large = static_cast<double>(std::max(rows, cols));
  testing::SetRates(state, 0, 5 * (4 * small * small * large + 2 * small * small * small));
}

void Shapes(benchmark::internal::Benchmark* bench) {
  bench->Args({1024, 64, 1})->Args({1024, 256, 1})->Args({4096, 256, 2})->UseRealTime();
}
BENCHMARK_CAPTURE(BM_NewtonSchulz, f32, DType::kF32)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_NewtonSchulz, bf16, DType::kBF16)->Apply(Shapes);

}  // namespace
}  // namespace trainyard::kernels
