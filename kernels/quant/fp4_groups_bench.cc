// Arguments: elements. bytes/s counts codes and values.
#include "kernels/quant/fp4_groups.h"
#include "kernels/testing/bench.h"
#include "kernels/testing/host_tensor.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

void BM_Dequantize(benchmark::State& state, DType dtype, DType scale_dtype) {
  Stream stream(1);
  const int64_t cols = state.range(0);
  const HostTensor packed(DType::kU8, {1, cols / 2});
  const HostTensor scales(scale_dtype, {1, cols / (scale_dtype == DType::kU8 ? kMxGroup : kNvGroup)});
  const HostTensor values(dtype, {1, cols});
  for (auto _ : state) Fp4GroupsDequantize({.packed = packed, .scales = scales, .values = values}, stream);
  testing::SetRates(state, static_cast<double>(packed.view().bytes() + values.view().bytes()), 0);
}

BENCHMARK_CAPTURE(BM_Dequantize, mx_f32, DType::kF32, DType::kU8)->Args({1 << 20})->UseRealTime();
BENCHMARK_CAPTURE(BM_Dequantize, mx_bf16, DType::kBF16, DType::kU8)->Args({1 << 20})->UseRealTime();
BENCHMARK_CAPTURE(BM_Dequantize, nv_f32, DType::kF32, DType::kF8E4M3)->Args({1 << 20})->UseRealTime();

}  // namespace
}  // namespace trainyard::kernels
