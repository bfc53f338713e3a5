// A step of ECO beside AdamW's: 13 and 9 bytes an element go to memory and back (E4M3, f32 moments), where AdamW moves
// 16 and 12.
#include "benchmark/benchmark.h"
#include "kernels/optim/adamw.h"
#include "kernels/optim/eco.h"
#include "kernels/testing/host_tensor.h"

namespace trainyard::kernels {
namespace {

using benchmark::Counter;
using testing::HostTensor;

constexpr int64_t kRows = 512, kCols = 4096, kCount = kRows * kCols;

void SetRates(benchmark::State& state) {
  state.counters["elements/s"] = Counter(static_cast<double>(kCount), Counter::kIsIterationInvariantRate);
}

void BM_Eco(benchmark::State& state, EcoForm form, DType format, int64_t span, DType moment_dtype, Rounding rounding) {
  Stream stream(1);
  const HostTensor w = HostTensor::Normal(DType::kF32, {kCount}, 1, 0.02);
  const HostTensor grad = HostTensor::Normal(DType::kF32, {kCount}, 2, 1e-3);
  const HostTensor codes(format, {format == DType::kU8 ? kCount / 2 : kCount});
  const HostTensor scales(format == DType::kU8 ? DType::kF16 : DType::kF32, {kCount / span});
  const HostTensor m(moment_dtype, {kCount}), v(moment_dtype, {kCount});
  const CodedMatrix weights{codes, scales};
  EncodeMatrix({.x = w, .matrix = weights}, stream);
  const HostTensor statistics(DType::kF32, {EcoPieces(weights), kEcoStatistics});
  const HostTensor workspace(DType::kU8, {EcoWorkspaceBytes(weights)});
  EcoArgs args = {.form = form, .weights = weights, .grad = grad, .m = m, .v = v, .lr = 1e-4f, .workspace = workspace};
  args.rounding = rounding;
  args.statistics = statistics;
  for (auto _ : state) {
    Eco(args, stream);
    ++args.step;
  }
  SetRates(state);
}
void Options(benchmark::internal::Benchmark* bench) {
  bench->UseRealTime()->Unit(benchmark::kMillisecond)->MinTime(0.5);
}
constexpr Rounding kNearest = Rounding::kNearestEven, kStochastic = Rounding::kStochastic;
BENCHMARK_CAPTURE(BM_Eco, adamw_e4m3_rows_nearest, EcoForm::kAdamW, DType::kF8E4M3, kCols, DType::kF32, kNearest)
    ->Apply(Options);
BENCHMARK_CAPTURE(BM_Eco, adamw_e4m3_rows, EcoForm::kAdamW, DType::kF8E4M3, kCols, DType::kF32, kStochastic)
    ->Apply(Options);
BENCHMARK_CAPTURE(BM_Eco, adamw_e4m3_rows_bf16, EcoForm::kAdamW, DType::kF8E4M3, kCols, DType::kBF16, kStochastic)
    ->Apply(Options);
BENCHMARK_CAPTURE(BM_Eco, adamw_e4m3_tensor, EcoForm::kAdamW, DType::kF8E4M3, kCount, DType::kF32, kStochastic)
    ->Apply(Options);
BENCHMARK_CAPTURE(BM_Eco, adamw_int4_128, EcoForm::kAdamW, DType::kU8, 128, DType::kF32, kStochastic)->Apply(Options);
BENCHMARK_CAPTURE(BM_Eco, sgdm_e4m3_rows, EcoForm::kSgdm, DType::kF8E4M3, kCols, DType::kF32, kStochastic)
    ->Apply(Options);

void BM_AdamW(benchmark::State& state) {
  Stream stream(1);
  const HostTensor w = HostTensor::Normal(DType::kF32, {kCount}, 1, 0.02);
  const HostTensor grad = HostTensor::Normal(DType::kF32, {kCount}, 2, 1e-3);
  const HostTensor m(DType::kF32, {kCount}), v(DType::kF32, {kCount});
  AdamWArgs args = {.param = w, .grad = grad, .m = m, .v = v, .lr = 1e-4f};
  for (auto _ : state) {
    AdamW(args, stream);
    ++args.step;
  }
  SetRates(state);
}
BENCHMARK(BM_AdamW)->Apply(Options);

}  // namespace
}  // namespace trainyard::kernels
