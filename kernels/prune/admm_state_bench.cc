// One update of z and u after its mask is chosen: the point, the projection, the residual. 16M elements.
#include "benchmark/benchmark.h"
#include "kernels/prune/admm_state.h"
#include "kernels/prune/mask.h"
#include "kernels/testing/bench.h"
#include "kernels/testing/host_tensor.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

constexpr int64_t kCount = int64_t{1} << 24;

void BM_AdmmState(benchmark::State& state, DType dtype) {
  Stream stream(static_cast<int>(state.range(0)));
  const HostTensor x = HostTensor::Filled(DType::kF32, {kCount}, 1), w(DType::kF32, {kCount});
  const HostTensor s(dtype, {kCount}), scale(DType::kF32, {1}), mask(DType::kU8, {MaskBytes(kCount)});
  const HostTensor sums(DType::kF32, {2}), workspace(DType::kU8, {AdmmResidualWorkspaceBytes(kCount)});
  const StoredTensor stored = HasScale(dtype) ? StoredTensor{s, scale} : StoredTensor{s};
  for (auto _ : state) {
    AdmmPoint({.x = x, .dual = stored, .mask = mask, .w = w}, stream);
    AdmmProject({.w = w, .mask = mask, .z = stored}, stream);
    AdmmResidual({.x = x, .w = w, .mask = mask, .sums = sums, .workspace = workspace}, stream);
  }
  const double width = static_cast<double>(SizeOf(dtype));
  testing::SetRates(state, static_cast<double>(kCount) * (8 + width + 4 + width + 8), 0);
}
BENCHMARK_CAPTURE(BM_AdmmState, f32, DType::kF32)->Arg(1)->Arg(2)->UseRealTime()->MinTime(0.2);
BENCHMARK_CAPTURE(BM_AdmmState, bf16, DType::kBF16)->Arg(1)->Arg(2)->UseRealTime()->MinTime(0.2);
BENCHMARK_CAPTURE(BM_AdmmState, e4m3, DType::kF8E4M3)->Arg(1)->Arg(2)->UseRealTime()->MinTime(0.2);

}  // namespace
}  // namespace trainyard::kernels
