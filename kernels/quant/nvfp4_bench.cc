// Arguments: elements, threads. bytes/s counts x and values.
#include "kernels/quant/abs_max.h"
#include "kernels/quant/nvfp4.h"
#include "kernels/testing/bench.h"
#include "kernels/testing/host_tensor.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

void BM_FakeQuantize(benchmark::State& state, DType dtype, NvFormat format) {
  Stream stream(static_cast<int>(state.range(1)));
  const int64_t cols = 1024;
  const int64_t rows = state.range(0) / cols;
  const HostTensor x = HostTensor::Normal(dtype, {rows, cols}, 1);
  const HostTensor values(dtype, {rows, cols}), amax(DType::kF32, {1}), tensor_scale(DType::kF32, {1});
  AbsMax({.x = x, .y = amax}, stream);
  for (auto _ : state) {
    NvQuantize({.x = x, .amax = amax, .format = format, .tensor_scale = tensor_scale, .values = values}, stream);
  }
  testing::SetRates(state, 2.0 * static_cast<double>(x.view().bytes()), 0);
}

void Shapes(benchmark::internal::Benchmark* bench) {
  for (int64_t threads : {1, 2}) bench->Args({1 << 20, threads});
  bench->UseRealTime();
}

constexpr NvFormat kSquare{.block = NvBlock::k16x16};
BENCHMARK_CAPTURE(BM_FakeQuantize, f32_nearest, DType::kF32, NvFormat{NvMethod::kNearest})->Apply(Shapes);
BENCHMARK_CAPTURE(BM_FakeQuantize, f32_four_over_six, DType::kF32, NvFormat{})->Apply(Shapes);
BENCHMARK_CAPTURE(BM_FakeQuantize, bf16_four_over_six, DType::kBF16, NvFormat{})->Apply(Shapes);
BENCHMARK_CAPTURE(BM_FakeQuantize, f32_square_four_over_six, DType::kF32, kSquare)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_FakeQuantize, f32_stochastic, DType::kF32, NvFormat{NvMethod::kStochastic})->Apply(Shapes);
BENCHMARK_CAPTURE(BM_FakeQuantize, f32_stochastic_four_over_six, DType::kF32,
                  NvFormat{NvMethod::kStochasticFourOverSix})
    ->Apply(Shapes);
BENCHMARK_CAPTURE(BM_FakeQuantize, f32_ms_eden, DType::kF32, NvFormat{NvMethod::kMsEden})->Apply(Shapes);

}  // namespace
}  // namespace trainyard::kernels
