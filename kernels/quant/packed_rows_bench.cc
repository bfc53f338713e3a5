// Arguments: columns of 1024 rows, bits. bytes/s counts one byte a code, or x and y of a mask.
#include "kernels/quant/packed_rows.h"
#include "kernels/testing/bench.h"
#include "kernels/testing/host_tensor.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

constexpr int64_t kRows = 1024;

void BM_PackRows(benchmark::State& state) {
  Stream stream(1);
  const int bits = static_cast<int>(state.range(1));
  const HostTensor codes(DType::kU8, {kRows, state.range(0)});
  const HostTensor packed(DType::kU8, {kRows, PackedBytes(state.range(0), bits)});
  for (auto _ : state) PackRows({.codes = codes, .packed = packed, .bits = bits}, stream);
  testing::SetRates(state, static_cast<double>(codes.view().bytes()), 0);
}

void BM_UnpackRows(benchmark::State& state) {
  Stream stream(1);
  const int bits = static_cast<int>(state.range(1));
  const HostTensor codes(DType::kU8, {kRows, state.range(0)});
  const HostTensor packed(DType::kU8, {kRows, PackedBytes(state.range(0), bits)});
  for (auto _ : state) UnpackRows({.packed = packed, .codes = codes, .bits = bits, .is_signed = true}, stream);
  testing::SetRates(state, static_cast<double>(codes.view().bytes()), 0);
}

void BM_MaskRows(benchmark::State& state, DType dtype) {
  Stream stream(1);
  const HostTensor x(dtype, {kRows, state.range(0)});
  const HostTensor mask(DType::kU8, {kRows, PackedBytes(state.range(0), 1)});
  for (auto _ : state) MaskRows({.x = x, .mask = mask, .y = x}, stream);
  testing::SetRates(state, 2.0 * static_cast<double>(x.view().bytes()), 0);
}

BENCHMARK(BM_PackRows)->Args({1024, 4})->Args({1024, 3})->UseRealTime();
BENCHMARK(BM_UnpackRows)->Args({1024, 4})->Args({1024, 3})->UseRealTime();
BENCHMARK_CAPTURE(BM_MaskRows, f32, DType::kF32)->Args({1024})->UseRealTime();
BENCHMARK_CAPTURE(BM_MaskRows, bf16, DType::kBF16)->Args({1024})->UseRealTime();

}  // namespace
}  // namespace trainyard::kernels
