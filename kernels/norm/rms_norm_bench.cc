// Arguments: rows, cols, threads.
#include "kernels/norm/rms_norm.h"
#include "kernels/testing/bench.h"
#include "kernels/testing/host_tensor.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

void BM_RmsNormForward(benchmark::State& state, DType dtype) {
  Stream stream(static_cast<int>(state.range(2)));
  const int64_t rows = state.range(0);
  const int64_t cols = state.range(1);
  const HostTensor x(dtype, {rows, cols});
  const HostTensor residual(dtype, {rows, cols});
  const HostTensor sum(dtype, {rows, cols});
  const HostTensor y(dtype, {rows, cols});
  const HostTensor w(dtype, {cols});
  const HostTensor inv_rms(DType::kF32, {rows});
  for (auto _ : state) {
    RmsNormForward({.x = x, .residual = residual, .sum = sum, .w = w, .y = y, .inv_rms = inv_rms}, stream);
  }
  testing::SetRates(state, 4.0 * static_cast<double>(x.view().bytes()), 5.0 * static_cast<double>(x.view().size()));
}

void BM_RmsNormBackward(benchmark::State& state, DType dtype) {
  Stream stream(static_cast<int>(state.range(2)));
  const int64_t rows = state.range(0);
  const int64_t cols = state.range(1);
  const HostTensor x(dtype, {rows, cols});
  const HostTensor dy(dtype, {rows, cols});
  const HostTensor dx(dtype, {rows, cols});
  const HostTensor w(dtype, {cols});
  const HostTensor dw(DType::kF32, {cols});
  const HostTensor inv_rms(DType::kF32, {rows});
  const HostTensor workspace(DType::kU8, {RmsNormBackwardWorkspaceBytes(rows, cols)});
  for (auto _ : state) {
    RmsNormBackward(
        {.x = x, .w = w, .inv_rms = inv_rms, .dy = dy, .dresidual = dx, .dx = dx, .dw = dw, .workspace = workspace},
        stream);
  }
  testing::SetRates(state, 4.0 * static_cast<double>(x.view().bytes()), 11.0 * static_cast<double>(x.view().size()));
}

void Shapes(benchmark::internal::Benchmark* bench) {
  for (int64_t threads : {1, 2}) bench->Args({4096, 512, threads})->Args({8192, 2048, threads});
  bench->UseRealTime();
}

BENCHMARK_CAPTURE(BM_RmsNormForward, f32, DType::kF32)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_RmsNormForward, bf16, DType::kBF16)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_RmsNormBackward, f32, DType::kF32)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_RmsNormBackward, bf16, DType::kBF16)->Apply(Shapes);

}  // namespace
}  // namespace trainyard::kernels
