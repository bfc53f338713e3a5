// Arguments: rows, vocabulary, cols, threads.
#include "kernels/embed/embedding.h"
#include "kernels/testing/bench.h"
#include "kernels/testing/host_tensor.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

void BM_EmbeddingForward(benchmark::State& state, DType dtype) {
  Stream stream(static_cast<int>(state.range(3)));
  const HostTensor tokens = testing::RandomTokens(state.range(0), state.range(1), 1);
  const HostTensor table(dtype, {state.range(1), state.range(2)});
  const HostTensor y(dtype, {state.range(0), state.range(2)});
  for (auto _ : state) EmbeddingForward({.tokens = tokens, .table = table, .y = y}, stream);
  testing::SetRates(state, 2.0 * static_cast<double>(y.view().bytes()), 0);
}

void BM_EmbeddingBackward(benchmark::State& state, DType dtype) {
  Stream stream(static_cast<int>(state.range(3)));
  const HostTensor tokens = testing::RandomTokens(state.range(0), state.range(1), 1);
  const HostTensor dtable(DType::kF32, {state.range(1), state.range(2)});
  const HostTensor dy(dtype, {state.range(0), state.range(2)});
  const HostTensor workspace(DType::kU8, {EmbeddingBackwardWorkspaceBytes(state.range(0))});
  for (auto _ : state) {
    EmbeddingBackward({.tokens = tokens, .dy = dy, .dtable = dtable, .workspace = workspace}, stream);
  }
  const double touched = static_cast<double>(dy.view().size());
  testing::SetRates(state, static_cast<double>(dy.view().bytes()) + 8 * touched, touched);
}

void Shapes(benchmark::internal::Benchmark* bench) {
  for (int64_t threads : {1, 2}) bench->Args({8192, 8192, 512, threads});
  bench->UseRealTime();
}

BENCHMARK_CAPTURE(BM_EmbeddingForward, f32, DType::kF32)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_EmbeddingForward, bf16, DType::kBF16)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_EmbeddingBackward, f32, DType::kF32)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_EmbeddingBackward, bf16, DType::kBF16)->Apply(Shapes);

}  // namespace
}  // namespace trainyard::kernels
