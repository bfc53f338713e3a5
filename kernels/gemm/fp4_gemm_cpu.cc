#include <algorithm>

#include "kernels/gemm/fp4_gemm_internal.h"
#include "kernels/gemm/gemm.h"
#include "kernels/quant/fp4_groups.h"

namespace trainyard::kernels {
namespace internal {
namespace {

int64_t ValueBytes(int64_t elements) {
  return (2 * elements + 63) / 64 * 64;
}
float TensorScale(const Fp4Matrix& x) {
  return x.tensor_scale ? x.tensor_scale.as<float>()[0] : 1.0f;
}

}  // namespace

void TileScalesCpu(const TensorView& scales, uint8_t* tiles, Stream& /*stream*/) {
  const int64_t rows = scales.dim(0);
  const int64_t groups = scales.dim(1);
  const uint8_t* from = static_cast<const uint8_t*>(scales.data());
  std::fill_n(tiles, ScaleTileBytes(rows, groups), uint8_t{0});
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t group = 0; group < groups; ++group) {
      tiles[ScaleTileOffset(row, group, groups)] = from[row * groups + group];
    }
  }
}

bool HasFp4ProductsCpu(int64_t /*n*/, int64_t /*k*/, Stream& /*stream*/) {
  return false;
}

void Fp4GemmCpu(const Fp4GemmArgs& args, Stream& stream) {
  const int64_t m = args.c.dim(0);
  const int64_t n = args.c.dim(1);
  const int64_t k = 2 * args.a.packed.dim(1);
  char* memory = static_cast<char*>(args.workspace.data());
  const TensorView a(memory, DType::kBF16, {m, k});
  const TensorView b(memory + ValueBytes(m * k), DType::kBF16, {n, k});
  char* rest = memory + ValueBytes(m * k) + ValueBytes(n * k);
  Fp4GroupsDequantize({.packed = args.a.packed, .scales = args.a.scales, .values = a}, stream);
  Fp4GroupsDequantize({.packed = args.b.packed, .scales = args.b.scales, .values = b}, stream);
  Gemm({.a = a,
        .b = b,
        .c = args.c,
        .transpose_b = true,
        .alpha = args.alpha * (TensorScale(args.a) * TensorScale(args.b)),
        .beta = args.beta,
        .bias = args.bias,
        .workspace = TensorView(rest, DType::kU8, {GemmWorkspaceBytes(DType::kBF16, m, n, k)})},
       stream);
}

}  // namespace internal

int64_t Fp4GemmWorkspaceBytes(int64_t m, int64_t n, int64_t k) {
  const int64_t emulation =
      internal::ValueBytes(m * k) + internal::ValueBytes(n * k) + GemmWorkspaceBytes(DType::kBF16, m, n, k);
  return std::max(emulation, Fp4GemmDeviceWorkspaceBytes(m, n, k));
}

int64_t Fp4GemmDeviceWorkspaceBytes(int64_t m, int64_t n, int64_t k) {
  const int64_t groups = (k + kNvGroup - 1) / kNvGroup;
  constexpr int64_t kAlignment = 256;
  return kAlignment + internal::ScaleTileBytes(m, groups) + internal::ScaleTileBytes(n, groups);
}

}  // namespace trainyard::kernels
