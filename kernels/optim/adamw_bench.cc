// AdamW against a copy of as many bytes: both should be bound by memory. 16M parameters, so nothing stays in a cache.
#include <cstring>

#include "benchmark/benchmark.h"
#include "kernels/optim/adamw.h"
#include "kernels/testing/host_tensor.h"

namespace trainyard::kernels {
namespace {

using benchmark::Counter;
using testing::HostTensor;

constexpr int64_t kCount = int64_t{1} << 24;

void SetRates(benchmark::State& state, int64_t bytes) {
  state.counters["bytes/s"] = Counter(static_cast<double>(bytes), Counter::kIsIterationInvariantRate);
}

void BM_AdamW(benchmark::State& state, DType dtype, DType moment_dtype, Rounding rounding) {
  Stream stream(static_cast<int>(state.range(0)));
  const HostTensor param = HostTensor::Filled(dtype, {kCount}, 1);
  const HostTensor grad = HostTensor::Filled(dtype, {kCount}, 0.5);
  const bool is_e4m3 = moment_dtype == DType::kF8E4M3;
  const HostTensor m(moment_dtype, {kCount}), m_scales(DType::kF32, {kCount / kMomentGroup});
  const HostTensor v(is_e4m3 ? DType::kBF16 : moment_dtype, {kCount});
  AdamWArgs args = {.param = param, .grad = grad, .m = m, .v = v, .lr = 1e-4f, .weight_decay = 0.1f};
  if (is_e4m3) args.m_scales = m_scales;
  args.rounding = rounding;
  for (auto _ : state) {
    AdamW(args, stream);
    ++args.step;
  }
  SetRates(state, 2 * param.view().bytes() + grad.view().bytes() + 2 * m.view().bytes() + 2 * v.view().bytes());
  state.counters["elements/s"] = Counter(static_cast<double>(kCount), Counter::kIsIterationInvariantRate);
}

void Threads(benchmark::internal::Benchmark* bench) {
  bench->Arg(1)->Arg(2)->UseRealTime()->Unit(benchmark::kMillisecond)->MinTime(0.2);
}
BENCHMARK_CAPTURE(BM_AdamW, f32, DType::kF32, DType::kF32, Rounding::kNearestEven)->Apply(Threads);
BENCHMARK_CAPTURE(BM_AdamW, bf16_nearest, DType::kBF16, DType::kBF16, Rounding::kNearestEven)->Apply(Threads);
BENCHMARK_CAPTURE(BM_AdamW, bf16_stochastic, DType::kBF16, DType::kBF16, Rounding::kStochastic)->Apply(Threads);
BENCHMARK_CAPTURE(BM_AdamW, f32_moments_bf16, DType::kF32, DType::kBF16, Rounding::kStochastic)->Apply(Threads);
BENCHMARK_CAPTURE(BM_AdamW, f32_moments_e4m3_bf16, DType::kF32, DType::kF8E4M3, Rounding::kStochastic)->Apply(Threads);

void BM_Copy(benchmark::State& state) {
  const HostTensor from = HostTensor::Filled(DType::kF32, {kCount}, 1);
  const HostTensor to(DType::kF32, {kCount});
  for (auto _ : state) {
    std::memcpy(to.view().data(), from.view().data(), static_cast<size_t>(from.view().bytes()));
    benchmark::ClobberMemory();
  }
  SetRates(state, 2 * from.view().bytes());
}
BENCHMARK(BM_Copy)->UseRealTime()->Unit(benchmark::kMillisecond)->MinTime(0.2);

}  // namespace
}  // namespace trainyard::kernels
