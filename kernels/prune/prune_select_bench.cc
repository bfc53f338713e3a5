// Choosing a mask: four to eight passes over the scores and one over the mask. 16M elements.
#include "benchmark/benchmark.h"
#include "kernels/prune/prune_select.h"
#include "kernels/testing/bench.h"
#include "kernels/testing/host_tensor.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

constexpr int64_t kCount = int64_t{1} << 24;

void BM_PruneLowest(benchmark::State& state, bool has_fisher) {
  Stream stream(static_cast<int>(state.range(0)));
  const HostTensor w = HostTensor::Normal(DType::kF32, {kCount}, 1);
  const HostTensor fisher = HostTensor::Filled(DType::kF32, {kCount}, 0.5);
  const HostTensor mask(DType::kU8, {MaskBytes(kCount)}), counts(DType::kU32, {256});
  PruneScore score = {.w = w};
  if (has_fisher) score.fisher = fisher;
  for (auto _ : state) PruneLowest({&score, 1}, kCount / 10 * 9, {&mask.view(), 1}, counts, stream);
  testing::SetRates(state, static_cast<double>(kCount) * 5 * (has_fisher ? 8 : 4), 0);
}
BENCHMARK_CAPTURE(BM_PruneLowest, magnitude, false)->Arg(1)->Arg(2)->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(BM_PruneLowest, fisher, true)->Arg(1)->Arg(2)->UseRealTime()->Unit(benchmark::kMillisecond);

void BM_PruneGroups(benchmark::State& state) {
  Stream stream(1);
  const HostTensor w = HostTensor::Normal(DType::kF32, {kCount}, 1);
  const HostTensor mask(DType::kU8, {MaskBytes(kCount)});
  const auto group = static_cast<int>(state.range(0));
  for (auto _ : state) PruneGroups({.score = {.w = w}, .keep = group / 2, .group = group, .mask = mask}, stream);
  testing::SetRates(state, static_cast<double>(kCount) * 4, 0);
}
BENCHMARK(BM_PruneGroups)->Arg(4)->Arg(8)->UseRealTime()->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace trainyard::kernels
