// Arguments: rows, columns, threads. bytes/s counts v once and every result.
#include "kernels/quant/quest.h"
#include "kernels/testing/bench.h"
#include "kernels/testing/host_tensor.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

// What a training step asks for: values and mask.
void BM_FakeQuantize(benchmark::State& state, DType dtype, QuestFormat format, int64_t rotate_group = 0) {
  Stream stream(static_cast<int>(state.range(2)));
  const int64_t rows = state.range(0);
  const int64_t cols = state.range(1);
  const HostTensor v = HostTensor::Normal(dtype, {rows, cols}, 1);
  const HostTensor steps(DType::kF32, {rows}), values(dtype, {rows, cols});
  const HostTensor mask(DType::kU8, {rows, PackedBytes(cols, 1)});
  for (auto _ : state) {
    QuestQuantize(
        {.v = v, .format = format, .rotate_group = rotate_group, .steps = steps, .values = values, .mask = mask},
        stream);
  }
  testing::SetRates(state, static_cast<double>(2 * v.view().bytes() + mask.view().bytes()), 0);
}

void BM_Codes(benchmark::State& state, QuestFormat format) {
  Stream stream(static_cast<int>(state.range(2)));
  const int64_t rows = state.range(0);
  const int64_t cols = state.range(1);
  const HostTensor v = HostTensor::Normal(DType::kF32, {rows, cols}, 1);
  const HostTensor steps(DType::kF32, {rows}), codes(DType::kU8, {rows, cols}), sums(DType::kI32, {rows});
  for (auto _ : state) {
    QuestQuantize({.v = v, .format = format, .steps = steps, .codes = codes, .code_sums = sums}, stream);
  }
  testing::SetRates(state, static_cast<double>(v.view().bytes() + codes.view().bytes()), 0);
}

void Shapes(benchmark::internal::Benchmark* bench) {
  for (int64_t threads : {1, 2}) bench->Args({1024, 1024, threads});
  bench->UseRealTime();
}

BENCHMARK_CAPTURE(BM_FakeQuantize, f32_int4, DType::kF32, QuestFormat{})->Apply(Shapes);
BENCHMARK_CAPTURE(BM_FakeQuantize, f32_int4_rotated, DType::kF32, QuestFormat{}, 128)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_FakeQuantize, bf16_int4, DType::kBF16, QuestFormat{})->Apply(Shapes);
BENCHMARK_CAPTURE(BM_FakeQuantize, f32_fp4, DType::kF32, QuestFormat{.grid = QuestGrid::kFp4})->Apply(Shapes);
BENCHMARK_CAPTURE(BM_FakeQuantize, f32_2_4_int4, DType::kF32, QuestFormat{.is_2_4_sparse = true})->Apply(Shapes);
BENCHMARK_CAPTURE(BM_Codes, int4, QuestFormat{})->Apply(Shapes);

}  // namespace
}  // namespace trainyard::kernels
