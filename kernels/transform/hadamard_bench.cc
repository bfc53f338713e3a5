// Arguments: rows, cols, group, threads. The copy of the same bytes is what the transform is compared with.
#include <cmath>
#include <cstring>

#include "kernels/testing/bench.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/transform/hadamard.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

void BM_Hadamard(benchmark::State& state, DType x_dtype, DType y_dtype, bool with_signs) {
  Stream stream(static_cast<int>(state.range(3)));
  const int64_t rows = state.range(0);
  const int64_t cols = state.range(1);
  const int64_t group = state.range(2);
  const HostTensor x = HostTensor::Normal(x_dtype, {rows, cols}, 1);
  const HostTensor y(y_dtype, {rows, cols});
  const HostTensor signs = HostTensor::Filled(DType::kF32, {group}, -1);
  for (auto _ : state) {
    Hadamard({.x = x, .y = y, .group = group, .signs = with_signs ? signs.view() : TensorView()}, stream);
  }
  const double elements = static_cast<double>(rows * cols);
  testing::SetRates(state, static_cast<double>(x.view().bytes() + y.view().bytes()),
                    elements * std::log2(static_cast<double>(group)));
}

// The backward of QuEST: mask and rotate back, in place.
void BM_MaskedInverse(benchmark::State& state, DType dtype) {
  Stream stream(static_cast<int>(state.range(3)));
  const int64_t rows = state.range(0);
  const int64_t cols = state.range(1);
  const HostTensor x = HostTensor::Normal(dtype, {rows, cols}, 1);
  const HostTensor mask(DType::kU8, {rows, cols / 8});
  std::memset(mask.view().data(), 0x7F, static_cast<size_t>(mask.view().bytes()));
  for (auto _ : state) Hadamard({.x = x, .y = x, .group = state.range(2), .mask = mask, .inverse = true}, stream);
  testing::SetRates(state, 2 * static_cast<double>(x.view().bytes()) + static_cast<double>(mask.view().bytes()), 0);
}

void BM_Copy(benchmark::State& state) {
  const HostTensor x = HostTensor::Normal(DType::kF32, {state.range(0), state.range(1)}, 1);
  const HostTensor y(DType::kF32, {state.range(0), state.range(1)});
  for (auto _ : state) {
    std::memcpy(y.view().data(), x.view().data(), static_cast<size_t>(x.view().bytes()));
    benchmark::ClobberMemory();
  }
  testing::SetRates(state, 2 * static_cast<double>(x.view().bytes()), 0);
}

void Shapes(benchmark::internal::Benchmark* bench) {
  for (int64_t group : {16, 128, 1024}) bench->Args({1024, 1024, group, 1});
  bench->Args({1024, 1024, 128, 2})->Args({16, 1024, 128, 1});  // the last fits the second-level cache
  bench->UseRealTime();
}

BENCHMARK(BM_Copy)->Args({1024, 1024})->Args({16, 1024})->UseRealTime();
BENCHMARK_CAPTURE(BM_Hadamard, f32, DType::kF32, DType::kF32, false)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_Hadamard, f32_signs, DType::kF32, DType::kF32, true)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_Hadamard, bf16_to_f32, DType::kBF16, DType::kF32, false)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_Hadamard, bf16, DType::kBF16, DType::kBF16, false)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_MaskedInverse, f32, DType::kF32)->Apply(Shapes);

}  // namespace
}  // namespace trainyard::kernels
