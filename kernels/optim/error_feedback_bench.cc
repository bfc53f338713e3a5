// Arguments: rows, cols, threads. Adding reads codes and gradient and writes the gradient; keeping, at rank 16, is
// bound by the passes and not by the product.
#include "kernels/optim/error_feedback.h"
#include "kernels/testing/bench.h"
#include "kernels/testing/host_tensor.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

struct Tensors {
  Tensors(int64_t rows, int64_t cols, int bits)
      : gradient(HostTensor::Normal(DType::kF32, {rows, cols}, 1)),
        codes(bits == 32 ? DType::kF32 : DType::kU8, {rows, bits == 32 ? cols : FeedbackRowBytes(bits, cols)}),
        min(DType::kF32, {rows}),
        max(DType::kF32, {rows}),
        store{bits, codes, min, max} {}
  HostTensor gradient, codes, min, max;
  FeedbackStore store;
  double bytes() const { return 8.0 * static_cast<double>(gradient.view().size()) + codes.view().bytes(); }
};

void BM_AddFeedback(benchmark::State& state, int bits) {
  Stream stream(static_cast<int>(state.range(2)));
  const Tensors x(state.range(0), state.range(1), bits);
  for (auto _ : state) AddFeedback({.gradient = x.gradient, .store = x.store}, stream);
  testing::SetRates(state, x.bytes(), 0);
}

void BM_KeepResidual(benchmark::State& state, int bits) {
  constexpr int64_t kRank = 16;
  Stream stream(static_cast<int>(state.range(2)));
  const Tensors x(state.range(0), state.range(1), bits);
  const HostTensor left(DType::kF32, {state.range(0), kRank}), right(DType::kF32, {kRank, state.range(1)});
  for (auto _ : state) {
    KeepResidual({.gradient = x.gradient, .selected = {.x = left, .y = right}, .store = x.store}, stream);
  }
  testing::SetRates(state, x.bytes(), 2.0 * kRank * static_cast<double>(x.gradient.view().size()));
}

void Shapes(benchmark::internal::Benchmark* bench) {
  bench->Args({1024, 1024, 1})->Args({4096, 4096, 1})->Args({4096, 4096, 2})->UseRealTime();
}
BENCHMARK_CAPTURE(BM_AddFeedback, int8, 8)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_AddFeedback, int4, 4)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_AddFeedback, full, 32)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_KeepResidual, int8, 8)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_KeepResidual, int4, 4)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_KeepResidual, full, 32)->Apply(Shapes);

}  // namespace
}  // namespace trainyard::kernels
