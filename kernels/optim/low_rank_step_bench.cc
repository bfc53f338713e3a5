// Arguments: rows, cols, rank, threads. FLOP/s against those of gemm_bench: all but the product should hide in it.
#include "kernels/optim/low_rank_step.h"
#include "kernels/testing/bench.h"
#include "kernels/testing/host_tensor.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

void BM_LowRankStep(benchmark::State& state) {
  const int64_t rows = state.range(0), cols = state.range(1), rank = state.range(2);
  Stream stream(static_cast<int>(state.range(3)));
  const HostTensor x = HostTensor::Normal(DType::kF32, {rows, rank}, 1);
  const HostTensor y = HostTensor::Normal(DType::kF32, {rank, cols}, 2);
  const HostTensor weight(DType::kF32, {rows, cols}), product(DType::kF32, {rows, cols});
  for (auto _ : state) {
    LowRankStep({.direction = {.x = x, .y = y}, .weight = weight, .product = product, .lr = 1e-3f}, stream);
  }
  const double elements = static_cast<double>(rows * cols);
  testing::SetRates(state, 12 * elements, 2 * elements * static_cast<double>(rank));
}
BENCHMARK(BM_LowRankStep)
    ->Args({1024, 1024, 64, 1})
    ->Args({1024, 1024, 256, 1})
    ->Args({4096, 1024, 256, 1})
    ->Args({4096, 1024, 256, 2})
    ->UseRealTime();

}  // namespace
}  // namespace trainyard::kernels
