// Cross-entropy over chunks of logits. Two reads of a row lie between memory and the loss, a third and a write give the
// gradient; flop/s count one exponential as one operation.
#include "benchmark/benchmark.h"
#include "kernels/loss/cross_entropy.h"
#include "kernels/testing/host_tensor.h"

namespace trainyard::kernels {
namespace {

using benchmark::Counter;
using testing::HostTensor;

void Run(benchmark::State& state, DType dtype, void (*op)(const CrossEntropyArgs&, Stream&)) {
  const int64_t rows = state.range(0);
  const int64_t vocab_size = state.range(1);
  Stream stream(static_cast<int>(state.range(2)));
  const HostTensor logits = HostTensor::Normal(dtype, {rows, vocab_size}, 1);
  const HostTensor targets = testing::RandomTokens(rows, vocab_size, 2);
  const HostTensor losses(DType::kF32, {rows});
  for (auto _ : state) op({.logits = logits, .targets = targets, .losses = losses}, stream);
  const double elements = static_cast<double>(rows * vocab_size);
  state.counters["elements/s"] = Counter(elements, Counter::kIsIterationInvariantRate);
  state.counters["bytes/s"] =
      Counter(elements * static_cast<double>(SizeOf(dtype)), Counter::kIsIterationInvariantRate);
}

void BM_Forward(benchmark::State& state, DType dtype) {
  Run(state, dtype, CrossEntropyForward);
}
void BM_ForwardBackward(benchmark::State& state, DType dtype) {
  Run(state, dtype, CrossEntropyForwardBackward);
}

void Shapes(benchmark::internal::Benchmark* bench) {
  for (int threads : {1, 2}) {
    bench->Args({512, 4096, threads});
    bench->Args({256, 49152, threads});
  }
  bench->UseRealTime()->Unit(benchmark::kMillisecond)->MinTime(0.2);
}
BENCHMARK_CAPTURE(BM_Forward, f32, DType::kF32)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_Forward, bf16, DType::kBF16)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_ForwardBackward, f32, DType::kF32)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_ForwardBackward, bf16, DType::kBF16)->Apply(Shapes);

}  // namespace
}  // namespace trainyard::kernels
