// The norm of a 25M-parameter model's gradients in about the tensors such a model has: bound by memory.
#include <vector>

#include "benchmark/benchmark.h"
#include "kernels/optim/global_norm.h"
#include "kernels/testing/host_tensor.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

void BM_GlobalNorm(benchmark::State& state, DType dtype) {
  Stream stream(static_cast<int>(state.range(0)));
  std::vector<HostTensor> tensors;
  int64_t bytes = 0;
  for (int layer = 0; layer < 8; ++layer) {
    for (int64_t size : {512, 512, 512 * 1024, 512 * 512, 512 * 2816, 512 * 1408}) {
      tensors.push_back(HostTensor::Filled(dtype, {size}, 0.01));
      bytes += tensors.back().view().bytes();
    }
  }
  const std::vector<TensorView> views(tensors.begin(), tensors.end());
  const HostTensor norm(DType::kF32, {1});
  const HostTensor workspace(DType::kU8, {GlobalNormWorkspaceBytes(views)});
  for (auto _ : state) GlobalNorm({.tensors = views, .norm = norm, .workspace = workspace}, stream);
  state.counters["bytes/s"] =
      benchmark::Counter(static_cast<double>(bytes), benchmark::Counter::kIsIterationInvariantRate);
}

void Threads(benchmark::internal::Benchmark* bench) {
  bench->Arg(1)->Arg(2)->UseRealTime()->Unit(benchmark::kMillisecond)->MinTime(0.2);
}
BENCHMARK_CAPTURE(BM_GlobalNorm, f32, DType::kF32)->Apply(Threads);
BENCHMARK_CAPTURE(BM_GlobalNorm, bf16, DType::kBF16)->Apply(Threads);

}  // namespace
}  // namespace trainyard::kernels
