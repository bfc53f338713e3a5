#include "kernels/gemm/fp4_gemm.h"

#include "kernels/core/dispatch.h"
#include "kernels/gemm/fp4_gemm_internal.h"
#include "kernels/quant/fp4_groups.h"

namespace trainyard::kernels {

void internal::TileScales(const TensorView& scales, uint8_t* tiles, Stream& stream) {
  TY_CHECK_EQ(scales.rank(), 2);
  TY_CHECK_EQ(static_cast<int64_t>(SizeOf(scales.dtype())), 1);
  TY_SELECT(stream, TileScales)(scales, tiles, stream);
}

namespace {

void CheckMatrix(const Fp4Matrix& x, DType scale_type, int64_t rows, int64_t k) {
  const int64_t group = scale_type == DType::kF8E4M3 ? kNvGroup : kMxGroup;
  TY_CHECK(x.packed.dtype() == DType::kU8);
  TY_CHECK_EQ(x.packed.rank(), 2);
  TY_CHECK_EQ(x.packed.dim(0), rows);
  TY_CHECK_EQ(x.packed.dim(1), k / 2);
  TY_CHECK(x.scales.dtype() == scale_type);
  TY_CHECK_EQ(x.scales.rank(), 2);
  TY_CHECK_EQ(x.scales.dim(0), rows);
  TY_CHECK_EQ(x.scales.dim(1) * group, k);
  if (x.tensor_scale) TY_CHECK_EQ(x.tensor_scale.size(), 1);
}

}  // namespace

void Fp4Gemm(const Fp4GemmArgs& args, Stream& stream) {
  const DType scale_type = args.a.scales.dtype();
  TY_CHECK(scale_type == DType::kF8E4M3 || scale_type == DType::kU8);
  TY_CHECK_EQ(args.c.rank(), 2);
  TY_CHECK(args.c.dtype() == DType::kBF16 || args.c.dtype() == DType::kF32);
  const int64_t m = args.c.dim(0);
  const int64_t n = args.c.dim(1);
  const int64_t k = 2 * args.a.packed.dim(1);
  CheckMatrix(args.a, scale_type, m, k);
  CheckMatrix(args.b, scale_type, n, k);
  if (args.bias) TY_CHECK_EQ(args.bias.size(), n);
  const bool on_device = stream.device() == Device::kCuda;
  TY_CHECK_GE(args.workspace ? args.workspace.bytes() : 0,
              on_device ? Fp4GemmDeviceWorkspaceBytes(m, n, k) : Fp4GemmWorkspaceBytes(m, n, k));
  TY_SELECT(stream, Fp4Gemm)(args, stream);
}

bool HasFp4Products(int64_t n, int64_t k, Stream& stream) {
  return TY_SELECT(stream, HasFp4Products)(n, k, stream);
}

}  // namespace trainyard::kernels
