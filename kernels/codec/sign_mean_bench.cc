// Arguments: elements, threads. bytes/s counts the f32 side.
#include "kernels/codec/sign_mean.h"
#include "kernels/testing/bench.h"
#include "kernels/testing/host_tensor.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

void BM_SignMean(benchmark::State& state, bool encodes) {
  Stream stream(static_cast<int>(state.range(1)));
  const SignMeanFormat format;
  const HostTensor x = HostTensor::Normal(DType::kF32, {state.range(0)}, 1);
  const HostTensor wire(DType::kU8, {format.WireOf(state.range(0)).bytes()});
  for (auto _ : state) {
    if (encodes) {
      SignMeanEncode({.x = x, .wire = wire, .format = format}, stream);
    } else {
      SignMeanDecode({.wire = wire, .y = x, .format = format}, stream);
    }
  }
  testing::SetRates(state, static_cast<double>(x.view().bytes()), 0);
}

BENCHMARK_CAPTURE(BM_SignMean, encode, true)->Args({1 << 20, 1})->UseRealTime();
BENCHMARK_CAPTURE(BM_SignMean, decode, false)->Args({1 << 20, 1})->UseRealTime();

}  // namespace
}  // namespace trainyard::kernels
