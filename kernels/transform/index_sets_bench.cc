// Arguments: n, r. Choosing r of n scores: three passes over n floats, whatever r is.
#include "kernels/testing/bench.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/transform/index_sets.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

void BM_TopIndices(benchmark::State& state) {
  Stream stream(1);
  const HostTensor scores = HostTensor::Normal(DType::kF32, {state.range(0)}, 1);
  const HostTensor indices(DType::kI32, {state.range(1)});
  for (auto _ : state) TopIndices({.scores = scores, .indices = indices}, stream);
  testing::SetRates(state, 4.0 * static_cast<double>(state.range(0) + state.range(1)), 0);
}
BENCHMARK(BM_TopIndices)->Args({1024, 64})->Args({1024, 512})->Args({4096, 512})->Args({28672, 512});

}  // namespace
}  // namespace trainyard::kernels
