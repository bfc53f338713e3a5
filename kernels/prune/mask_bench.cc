// Applying and comparing masks; bound by memory. 16M elements.
#include "benchmark/benchmark.h"
#include "kernels/prune/mask.h"
#include "kernels/testing/bench.h"
#include "kernels/testing/host_tensor.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

constexpr int64_t kCount = int64_t{1} << 24;

void BM_MaskApply(benchmark::State& state) {
  Stream stream(static_cast<int>(state.range(0)));
  const HostTensor x(DType::kF32, {kCount}), mask(DType::kU8, {MaskBytes(kCount)});
  for (auto _ : state) MaskApply({.x = x, .mask = mask}, stream);
  testing::SetRates(state, static_cast<double>(kCount) * 8.125, 0);
}
BENCHMARK(BM_MaskApply)->Arg(1)->Arg(2)->UseRealTime()->MinTime(0.2);

void BM_MaskCompare(benchmark::State& state) {
  Stream stream(static_cast<int>(state.range(0)));
  const HostTensor a(DType::kU8, {MaskBytes(kCount)}), b(DType::kU8, {MaskBytes(kCount)}), counts(DType::kU32, {3});
  for (auto _ : state) MaskCompare({.a = a, .b = b, .counts = counts}, stream);
  testing::SetRates(state, static_cast<double>(kCount) * 0.25, 0);
}
BENCHMARK(BM_MaskCompare)->Arg(1)->Arg(2)->UseRealTime()->MinTime(0.2);

}  // namespace
}  // namespace trainyard::kernels
