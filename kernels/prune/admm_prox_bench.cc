// The pull of ADMM against what it must read and write; bound by memory. 16M elements.
#include "benchmark/benchmark.h"
#include "kernels/prune/admm_prox.h"
#include "kernels/testing/bench.h"
#include "kernels/testing/host_tensor.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

constexpr int64_t kCount = int64_t{1} << 24;

void BM_AdmmProx(benchmark::State& state, DType dtype, bool is_merged) {
  Stream stream(static_cast<int>(state.range(0)));
  const HostTensor grad(DType::kF32, {kCount}), x(DType::kF32, {kCount}), z(dtype, {kCount}), u(dtype, {kCount});
  AdmmProxArgs args = {.grad = grad, .x = x, .z = {z}, .lambda = 0.01f};
  if (!is_merged) args.u = {u};
  for (auto _ : state) AdmmProx(args, stream);
  const double states = is_merged ? 1 : 2;
  testing::SetRates(state, static_cast<double>(kCount) * (12 + states * static_cast<double>(SizeOf(dtype))),
                    static_cast<double>(kCount) * 4);
}
BENCHMARK_CAPTURE(BM_AdmmProx, merged_f32, DType::kF32, true)->Arg(1)->Arg(2)->UseRealTime()->MinTime(0.2);
BENCHMARK_CAPTURE(BM_AdmmProx, merged_bf16, DType::kBF16, true)->Arg(1)->Arg(2)->UseRealTime()->MinTime(0.2);
BENCHMARK_CAPTURE(BM_AdmmProx, separate_f32, DType::kF32, false)->Arg(1)->Arg(2)->UseRealTime()->MinTime(0.2);

}  // namespace
}  // namespace trainyard::kernels
