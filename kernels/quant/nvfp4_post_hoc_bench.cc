// Arguments: elements, threads. bytes/s counts x and values. Beside it what it replaces: the largest magnitude, then
// kMsEden.
#include "kernels/quant/abs_max.h"
#include "kernels/quant/nvfp4_post_hoc.h"
#include "kernels/testing/bench.h"
#include "kernels/testing/host_tensor.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

struct Operands {
  explicit Operands(int64_t elements)
      : x(HostTensor::Normal(DType::kF32, {elements / 1024, 1024}, 1)),
        values(DType::kF32, {elements / 1024, 1024}),
        pseudo(DType::kBF16, {elements / 1024, 64}),
        amax(DType::kF32, {1}),
        tensor_scale(DType::kF32, {1}) {}
  HostTensor x, values, pseudo, amax, tensor_scale;
};

void BM_PostHoc(benchmark::State& state) {
  Stream stream(static_cast<int>(state.range(1)));
  const Operands at(state.range(0));
  for (auto _ : state) {
    NvPostHocQuantize({.x = at.x, .pseudo_scales = at.pseudo, .tensor_scale = at.tensor_scale, .values = at.values},
                      stream);
  }
  testing::SetRates(state, 2.0 * static_cast<double>(at.x.view().bytes()), 0);
}

void BM_TwoPasses(benchmark::State& state) {
  Stream stream(static_cast<int>(state.range(1)));
  const Operands at(state.range(0));
  for (auto _ : state) {
    AbsMax({.x = at.x, .y = at.amax}, stream);
    NvQuantize({.x = at.x,
                .amax = at.amax,
                .format = {.method = NvMethod::kMsEden},
                .tensor_scale = at.tensor_scale,
                .values = at.values},
               stream);
  }
  testing::SetRates(state, 2.0 * static_cast<double>(at.x.view().bytes()), 0);
}

BENCHMARK(BM_PostHoc)->Args({1 << 20, 1})->Args({1 << 20, 2})->UseRealTime();
BENCHMARK(BM_TwoPasses)->Args({1 << 20, 1})->Args({1 << 20, 2})->UseRealTime();

}  // namespace
}  // namespace trainyard::kernels
