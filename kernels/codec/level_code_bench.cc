// Arguments: elements, levels above 0, threads. bytes/s counts the f32 side.
#include "kernels/codec/level_code.h"
#include "kernels/codec/level_fit.h"
#include "kernels/testing/bench.h"
#include "kernels/testing/host_tensor.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

void BM_Encode(benchmark::State& state, LevelNorm norm) {
  Stream stream(static_cast<int>(state.range(2)));
  const std::vector<float> levels = UniformLevels(static_cast<int>(state.range(1)));
  const LevelFormat format{levels, norm, 512};
  const HostTensor x = HostTensor::Normal(DType::kF32, {state.range(0)}, 1);
  const HostTensor wire(DType::kU8, {format.WireOf(state.range(0)).bytes()});
  for (auto _ : state) LevelEncode({.x = x, .wire = wire, .format = format, .random = {}}, stream);
  testing::SetRates(state, static_cast<double>(x.view().bytes()), 0);
}

void BM_Decode(benchmark::State& state) {
  Stream stream(static_cast<int>(state.range(2)));
  const std::vector<float> levels = UniformLevels(static_cast<int>(state.range(1)));
  const LevelFormat format{levels, LevelNorm::kLInf, 512};
  const HostTensor x = HostTensor::Normal(DType::kF32, {state.range(0)}, 1);
  const HostTensor wire(DType::kU8, {format.WireOf(state.range(0)).bytes()});
  LevelEncode({.x = x, .wire = wire, .format = format, .random = {}}, stream);
  for (auto _ : state) LevelDecode({.wire = wire, .y = x, .format = format}, stream);
  testing::SetRates(state, static_cast<double>(x.view().bytes()), 0);
}

void BM_Histogram(benchmark::State& state) {
  const HostTensor x = HostTensor::Normal(DType::kF32, {state.range(0)}, 1);
  LevelHistogram histogram;
  for (auto _ : state) AddToHistogram(x.as<float>(), state.range(0), LevelNorm::kLInf, 512, &histogram);
  testing::SetRates(state, static_cast<double>(x.view().bytes()), 0);
}

void BM_Refit(benchmark::State& state) {
  const HostTensor x = HostTensor::Normal(DType::kF32, {1 << 16}, 1);
  LevelHistogram histogram;
  AddToHistogram(x.as<float>(), 1 << 16, LevelNorm::kLInf, 512, &histogram);
  const std::vector<float> levels = UniformLevels(static_cast<int>(state.range(0)));
  for (auto _ : state) benchmark::DoNotOptimize(RefitLevels(histogram, levels));
}

void Shapes(benchmark::internal::Benchmark* bench) {
  for (int64_t steps : {1, 3, 7, 15, 127}) bench->Args({1 << 20, steps, 1});
  bench->UseRealTime();
}

BENCHMARK_CAPTURE(BM_Encode, linf, LevelNorm::kLInf)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_Encode, l2, LevelNorm::kL2)->Args({1 << 20, 7, 1})->UseRealTime();
BENCHMARK(BM_Decode)->Apply(Shapes);
BENCHMARK(BM_Histogram)->Arg(1 << 20);
BENCHMARK(BM_Refit)->Arg(7)->Arg(127);

}  // namespace
}  // namespace trainyard::kernels
