// Arguments: elements, k. bytes/s counts the f32 side.
#include "kernels/codec/top_k.h"
#include "kernels/testing/bench.h"
#include "kernels/testing/host_tensor.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

void BM_TopK(benchmark::State& state, bool encodes) {
  Stream stream(1);
  const HostTensor x = HostTensor::Normal(DType::kF32, {state.range(0)}, 1);
  const HostTensor wire(DType::kU8, {TopKBytes(state.range(1))});
  TopKEncode({.x = x, .wire = wire, .k = state.range(1)}, stream);
  for (auto _ : state) {
    if (encodes) {
      TopKEncode({.x = x, .wire = wire, .k = state.range(1)}, stream);
    } else {
      TopKDecode({.wire = wire, .y = x, .k = state.range(1)}, stream);
    }
  }
  testing::SetRates(state, static_cast<double>(x.view().bytes()), 0);
}

BENCHMARK_CAPTURE(BM_TopK, encode, true)->Args({1 << 20, 1 << 10})->Args({1 << 20, 1 << 17});
BENCHMARK_CAPTURE(BM_TopK, decode, false)->Args({1 << 20, 1 << 10})->Args({1 << 20, 1 << 17});

}  // namespace
}  // namespace trainyard::kernels
