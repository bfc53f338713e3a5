// Arguments: elements, bits, bucket, threads. bytes/s counts the f32 side.
#include "kernels/codec/maxmin.h"
#include "kernels/testing/bench.h"
#include "kernels/testing/host_tensor.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

struct Case {
  explicit Case(benchmark::State& state)
      : stream(static_cast<int>(state.range(3))),
        format{static_cast<int>(state.range(1)), state.range(2)},
        x(HostTensor::Normal(DType::kF32, {state.range(0)}, 1)),
        wire(DType::kU8, {format.WireOf(state.range(0)).bytes()}) {}

  Stream stream;
  MaxminFormat format;
  HostTensor x, wire;
};

void BM_Encode(benchmark::State& state, CodeRounding rounding) {
  Case c(state);
  for (auto _ : state) MaxminEncode({.x = c.x, .wire = c.wire, .format = c.format, .rounding = rounding}, c.stream);
  testing::SetRates(state, static_cast<double>(c.x.view().bytes()), 0);
}

void BM_Decode(benchmark::State& state) {
  Case c(state);
  MaxminEncode({.x = c.x, .wire = c.wire, .format = c.format}, c.stream);
  for (auto _ : state) MaxminDecode({.wire = c.wire, .y = c.x, .format = c.format}, c.stream);
  testing::SetRates(state, static_cast<double>(c.x.view().bytes()), 0);
}

void BM_SquaredError(benchmark::State& state) {
  Case c(state);
  for (auto _ : state) benchmark::DoNotOptimize(MaxminSquaredError({.x = c.x, .format = c.format}, c.stream));
  testing::SetRates(state, static_cast<double>(c.x.view().bytes()), 0);
}

void Shapes(benchmark::internal::Benchmark* bench) {
  for (int64_t bits : {1, 2, 4, 5, 8}) bench->Args({1 << 20, bits, 512, 1});
  for (int64_t bucket : {64, 8192}) bench->Args({1 << 20, 4, bucket, 1});
  bench->Args({1 << 20, 4, 512, 2});
  bench->UseRealTime();
}

BENCHMARK_CAPTURE(BM_Encode, stochastic, CodeRounding::kStochastic)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_Encode, nearest, CodeRounding::kNearest)->Apply(Shapes);
BENCHMARK(BM_Decode)->Apply(Shapes);
BENCHMARK(BM_SquaredError)->Args({1 << 20, 4, 512, 1})->UseRealTime();

}  // namespace
}  // namespace trainyard::kernels
