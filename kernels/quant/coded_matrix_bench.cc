// Codes to values is what every use of a coded weight pays: it should run at the speed of memory.
#include "benchmark/benchmark.h"
#include "kernels/quant/coded_matrix.h"
#include "kernels/testing/host_tensor.h"

namespace trainyard::kernels {
namespace {

using benchmark::Counter;
using testing::HostTensor;

constexpr int64_t kRows = 1024, kCols = 4096;

struct Codes {
  Codes(DType format, int64_t span)
      : codes(format, {format == DType::kU8 ? kRows * kCols / 2 : kRows * kCols}),
        scales(format == DType::kU8 ? DType::kF16 : DType::kF32, {kRows * kCols / span}) {}
  CodedMatrix matrix() const { return {codes, scales}; }
  HostTensor codes, scales;
};

void SetRates(benchmark::State& state) {
  state.counters["elements/s"] = Counter(static_cast<double>(kRows * kCols), Counter::kIsIterationInvariantRate);
}

void BM_Decode(benchmark::State& state, DType format, int64_t span, DType to) {
  Stream stream(1);
  const Codes codes(format, span);
  const HostTensor y(to, {kRows, kCols});
  for (auto _ : state) DecodeMatrix({.matrix = codes.matrix(), .y = y}, stream);
  SetRates(state);
}
BENCHMARK_CAPTURE(BM_Decode, e4m3_rows, DType::kF8E4M3, kCols, DType::kF32)->UseRealTime()->MinTime(0.2);
BENCHMARK_CAPTURE(BM_Decode, e4m3_rows_to_bf16, DType::kF8E4M3, kCols, DType::kBF16)->UseRealTime()->MinTime(0.2);
BENCHMARK_CAPTURE(BM_Decode, int4_128, DType::kU8, 128, DType::kF32)->UseRealTime()->MinTime(0.2);

void BM_Encode(benchmark::State& state, DType format, int64_t span, Rounding rounding) {
  Stream stream(1);
  const Codes codes(format, span);
  const HostTensor x = HostTensor::Normal(DType::kF32, {kRows, kCols}, 1);
  for (auto _ : state) EncodeMatrix({.x = x, .matrix = codes.matrix(), .rounding = rounding}, stream);
  SetRates(state);
}
BENCHMARK_CAPTURE(BM_Encode, e4m3_rows, DType::kF8E4M3, kCols, Rounding::kNearestEven)->UseRealTime()->MinTime(0.2);
BENCHMARK_CAPTURE(BM_Encode, e4m3_rows_sr, DType::kF8E4M3, kCols, Rounding::kStochastic)->UseRealTime()->MinTime(0.2);
BENCHMARK_CAPTURE(BM_Encode, int4_128_sr, DType::kU8, 128, Rounding::kStochastic)->UseRealTime()->MinTime(0.2);

}  // namespace
}  // namespace trainyard::kernels
