// Arguments: elements, threads. bytes/s counts v and values.
#include "kernels/quant/mxfp4.h"
#include "kernels/testing/bench.h"
#include "kernels/testing/host_tensor.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

void BM_FakeQuantize(benchmark::State& state, DType dtype, MxFormat format) {
  Stream stream(static_cast<int>(state.range(1)));
  const HostTensor v = HostTensor::Normal(dtype, {1, state.range(0)}, 1);
  const HostTensor values(dtype, {1, state.range(0)});
  const HostTensor mask(DType::kU8, {1, state.range(0) / 8});
  for (auto _ : state) MxQuantize({.v = v, .format = format, .values = values, .mask = mask}, stream);
  testing::SetRates(state, 2.0 * static_cast<double>(v.view().bytes()), 0);
}

void Shapes(benchmark::internal::Benchmark* bench) {
  for (int64_t threads : {1, 2}) bench->Args({1 << 20, threads});
  bench->UseRealTime();
}

constexpr MxFormat kAbsMaxNearest{.scale = MxScale::kAbsMax};
constexpr MxFormat kAbsMaxStochastic{.scale = MxScale::kAbsMax, .rounding = Rounding::kStochastic};
BENCHMARK_CAPTURE(BM_FakeQuantize, f32_quest, DType::kF32, MxFormat{})->Apply(Shapes);
BENCHMARK_CAPTURE(BM_FakeQuantize, bf16_quest, DType::kBF16, MxFormat{})->Apply(Shapes);
BENCHMARK_CAPTURE(BM_FakeQuantize, f32_abs_max_nearest, DType::kF32, kAbsMaxNearest)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_FakeQuantize, f32_abs_max_stochastic, DType::kF32, kAbsMaxStochastic)->Apply(Shapes);

}  // namespace
}  // namespace trainyard::kernels
