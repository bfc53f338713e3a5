#include "kernels/core/dispatch.h"
#include "kernels/gemm/cublaslt.h"
#include "kernels/gemm/fp4_gemm_internal.h"
#include "kernels/gemm/gemm_tile.h"
#include "kernels/quant/e2m1.h"
#include "kernels/quant/e8m0.h"
#include "kernels/quant/fp4_groups.h"

namespace trainyard::kernels::internal {
namespace {

struct E4M3Scale {
  static constexpr int64_t kGroup = kNvGroup;
  static __device__ float Value(uint8_t bits) { return WidenToFloat(Float8E4M3{bits}); }
};
struct E8M0Scale {
  static constexpr int64_t kGroup = kMxGroup;
  static __device__ float Value(uint8_t bits) { return E8M0Value(bits); }
};

template <typename Scale>
struct GroupOperand {
  const uint8_t* packed = nullptr;
  const uint8_t* scales = nullptr;
  int64_t depth = 0;

  __device__ bool DepthIsContiguous() const { return true; }
  __device__ float operator()(int64_t row, int64_t k) const {
    const int both = packed[row * (depth / 2) + k / 2];
    const uint8_t code = static_cast<uint8_t>((both >> (k % 2 * 4)) & 15);
    return E2M1Value(code) * Scale::Value(scales[row * (depth / Scale::kGroup) + k / Scale::kGroup]);
  }
};

const float* TensorScale(const Fp4Matrix& x) {
  return x.tensor_scale ? x.tensor_scale.as<float>() : nullptr;
}

__global__ void TileScalesKernel(const uint8_t* scales, uint8_t* tiles, int64_t rows, int64_t groups, int64_t count) {
  const int64_t padded = (groups + 3) / 4 * 4;
  for (int64_t i = GlobalThread(); i < count; i += GlobalThreads()) {
    const int64_t row = i / padded;
    const int64_t group = i % padded;
    const bool exists = row < rows && group < groups;
    tiles[ScaleTileOffset(row, group, groups)] = exists ? scales[row * groups + group] : uint8_t{0};
  }
}

uint8_t* AlignedTo256(void* memory) {
  return reinterpret_cast<uint8_t*>((reinterpret_cast<uintptr_t>(memory) + 255) / 256 * 256);
}

bool RunBlockScaled(const Fp4GemmArgs& args, Stream& stream) {
  const int64_t m = args.c.dim(0);
  const int64_t n = args.c.dim(1);
  const int64_t k = 2 * args.a.packed.dim(1);
  const auto is_aligned = [](const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; };
  if (args.a.scales.dtype() != DType::kF8E4M3 || CublasLtCapability() < 100) return false;
  if (m == 0 || n == 0 || k == 0 || k % 32 != 0 || n % 8 != 0) return false;
  if (!is_aligned(args.a.packed.data()) || !is_aligned(args.b.packed.data()) || !is_aligned(args.c.data())) {
    return false;
  }
  if (args.bias && args.bias.dtype() != args.c.dtype()) return false;
  uint8_t* a_tiles = AlignedTo256(args.workspace.data());
  uint8_t* b_tiles = a_tiles + ScaleTileBytes(m, args.a.scales.dim(1));
  TileScalesCuda(args.a.scales, a_tiles, stream);
  TileScalesCuda(args.b.scales, b_tiles, stream);
  LtProduct product = {.a = args.a.packed.data(),
                       .b = args.b.packed.data(),
                       .c = args.c.data(),
                       .a_type = DType::kU8,
                       .b_type = DType::kU8,
                       .c_type = args.c.dtype(),
                       .transpose_b = true,
                       .m = m,
                       .n = n,
                       .k = k,
                       .alpha = args.alpha,
                       .beta = args.beta,
                       .scaling = LtScaling::kNv,
                       .a_scale = a_tiles,
                       .b_scale = b_tiles,
                       .a_factor = TensorScale(args.a),
                       .b_factor = TensorScale(args.b)};
  if (args.bias) {
    product.bias = args.bias.data();
    product.bias_type = args.bias.dtype();
  }
  return RunCublasLt(product, stream);
}

}  // namespace

void TileScalesCuda(const TensorView& scales, uint8_t* tiles, Stream& stream) {
  const int64_t count = ScaleTileBytes(scales.dim(0), scales.dim(1));
  if (count == 0) return;
  Launch(stream, ElementwiseGrid(count), TileScalesKernel, static_cast<const uint8_t*>(scales.data()), tiles,
         scales.dim(0), scales.dim(1), count);
}

void Fp4GemmTiled(const Fp4GemmArgs& args, Stream& stream) {
  const int64_t k = 2 * args.a.packed.dim(1);
  DispatchFloat(args.c.dtype(), [&](auto tag) {
    using C = typename decltype(tag)::type;
    TileOutput<C> out = {
        .c = args.c.as<C>(), .rows = args.c.dim(0), .cols = args.c.dim(1), .alpha = args.alpha, .beta = args.beta};
    out.scale_a = TensorScale(args.a);
    out.scale_b = TensorScale(args.b);
    out.SetBias(args.bias);
    const auto launch = [&](auto scale) {
      using Operand = GroupOperand<decltype(scale)>;
      const auto operand = [&](const Fp4Matrix& x) {
        return Operand{x.packed.as<uint8_t>(), static_cast<const uint8_t*>(x.scales.data()), k};
      };
      LaunchTiledProduct(operand(args.a), operand(args.b), out, k, stream);
    };
    if (args.a.scales.dtype() == DType::kF8E4M3) {
      launch(E4M3Scale{});
    } else {
      launch(E8M0Scale{});
    }
  });
}

bool HasFp4ProductsCuda(int64_t n, int64_t k, Stream& /*stream*/) {
  const int capability = CublasLtCapability();
  return capability == 0 || (capability >= 100 && n % 8 == 0 && k % 32 == 0);
}

void Fp4GemmCuda(const Fp4GemmArgs& args, Stream& stream) {
  if (!RunBlockScaled(args, stream)) Fp4GemmTiled(args, stream);
}

}  // namespace trainyard::kernels::internal
