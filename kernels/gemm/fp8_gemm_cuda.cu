#include "kernels/core/dispatch.h"
#include "kernels/gemm/cublaslt.h"
#include "kernels/gemm/fp8_gemm_internal.h"
#include "kernels/gemm/gemm_tile.h"
#include "kernels/quant/number_format.h"

namespace trainyard::kernels::internal {
namespace {

// Element (row, k) of stored codes: data[row * row_stride + k * depth_stride].
template <typename T>
struct CodeOperand {
  const T* data = nullptr;
  int64_t row_stride = 0, depth_stride = 0;

  __device__ bool DepthIsContiguous() const { return depth_stride == 1; }
  __device__ float operator()(int64_t row, int64_t k) const {
    return WidenToFloat(data[row * row_stride + k * depth_stride]);
  }
};

constexpr int kTransposeTile = 64;
constexpr int kTransposeThreads = 256;

// y (cols, rows) = x^T, bytes; a block a tile at a time. Rows in shared memory lie 17 words apart: no bank conflicts.
__global__ void __launch_bounds__(kTransposeThreads)
    TransposeBytesKernel(const uint8_t* x, uint8_t* y, int64_t rows, int64_t cols) {
  __shared__ uint8_t tile[kTransposeTile][kTransposeTile + 4];
  const int64_t tiles_across = (cols + kTransposeTile - 1) / kTransposeTile;
  const int64_t tiles = (rows + kTransposeTile - 1) / kTransposeTile * tiles_across;
  for (int64_t t = blockIdx.x; t < tiles; t += gridDim.x) {
    const int64_t row = t / tiles_across * kTransposeTile;
    const int64_t col = t % tiles_across * kTransposeTile;
    __syncthreads();  // the last tile has been read
    for (int i = static_cast<int>(threadIdx.x); i < kTransposeTile * kTransposeTile; i += kTransposeThreads) {
      const int r = i / kTransposeTile;
      const int c = i % kTransposeTile;
      if (row + r < rows && col + c < cols) tile[r][c] = x[(row + r) * cols + col + c];
    }
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < kTransposeTile * kTransposeTile; i += kTransposeThreads) {
      const int r = i % kTransposeTile;
      const int c = i / kTransposeTile;
      if (row + r < rows && col + c < cols) y[(col + c) * rows + row + r] = tile[r][c];
    }
  }
}

template <typename Body>
void DispatchCodes(DType dtype, const Body& body) {
  if (dtype == DType::kF8E4M3) {
    body(DTypeTag<Float8E4M3>{});
  } else {
    body(DTypeTag<Float8E5M2>{});
  }
}

bool IsAligned(const void* p) {
  return reinterpret_cast<uintptr_t>(p) % 16 == 0;
}

// False, with nothing enqueued that matters, if cuBLASLt does not take it.
bool RunOnLibrary(const Fp8GemmArgs& args, Stream& stream) {
  const int64_t m = args.c.dim(0);
  const int64_t n = args.c.dim(1);
  const int64_t k = args.a.dim(args.transpose_a ? 0 : 1);
  const bool both_wide = args.a.dtype() == DType::kF8E5M2 && args.b.dtype() == DType::kF8E5M2;
  if (CublasLtCapability() < 89 || m == 0 || k % 16 != 0 || n % 16 != 0 || both_wide) return false;
  if (args.bias && args.bias.dtype() != DType::kBF16) return false;
  const void* a = args.a.data();
  const void* b = args.b.data();
  if (args.transpose_a) {
    Fp8TransposeBytes(args.a, args.workspace.data(), stream);
    a = args.workspace.data();
  }
  if (!args.transpose_b) {
    uint8_t* to = static_cast<uint8_t*>(args.workspace.data()) + Fp8TransposedBytes(args.transpose_a ? m * k : 0);
    Fp8TransposeBytes(args.b, to, stream);
    b = to;
  }
  if (!IsAligned(a) || !IsAligned(b) || !IsAligned(args.c.data())) return false;
  LtProduct product = {.a = a,
                       .b = b,
                       .c = args.c.data(),
                       .a_type = args.a.dtype(),
                       .b_type = args.b.dtype(),
                       .c_type = args.c.dtype(),
                       .transpose_b = true,
                       .m = m,
                       .n = n,
                       .k = k,
                       .alpha = args.alpha,
                       .beta = args.beta,
                       .scaling = LtScaling::kTensor,
                       .a_scale = args.a_inverse.data(),
                       .b_scale = args.b_inverse.data()};
  if (args.bias) {
    product.bias = args.bias.data();
    product.bias_type = args.bias.dtype();
  }
  return RunCublasLt(product, stream);
}

}  // namespace

void Fp8TransposeBytes(const TensorView& x, void* y, Stream& stream) {
  const int64_t rows = x.dim(0);
  const int64_t cols = x.dim(1);
  const int64_t tiles = (rows + kTransposeTile - 1) / kTransposeTile * ((cols + kTransposeTile - 1) / kTransposeTile);
  if (tiles == 0) return;
  Launch(stream, RowGrid(tiles, kTransposeThreads), TransposeBytesKernel, static_cast<const uint8_t*>(x.data()),
         static_cast<uint8_t*>(y), rows, cols);
}

void Fp8GemmTiled(const Fp8GemmArgs& args, Stream& stream) {
  const int64_t m = args.c.dim(0);
  const int64_t n = args.c.dim(1);
  const int64_t k = args.a.dim(args.transpose_a ? 0 : 1);
  DispatchFloat(args.c.dtype(), [&](auto c_tag) {
    using C = typename decltype(c_tag)::type;
    TileOutput<C> out = {.c = args.c.as<C>(), .rows = m, .cols = n, .alpha = args.alpha, .beta = args.beta};
    out.scale_a = args.a_inverse.as<float>();
    out.scale_b = args.b_inverse.as<float>();
    out.SetBias(args.bias);
    DispatchCodes(args.a.dtype(), [&](auto a_tag) {
      using A = typename decltype(a_tag)::type;
      DispatchCodes(args.b.dtype(), [&](auto b_tag) {
        using B = typename decltype(b_tag)::type;
        const CodeOperand<A> a = {args.a.as<A>(), args.transpose_a ? 1 : k, args.transpose_a ? m : 1};
        const CodeOperand<B> b = {args.b.as<B>(), args.transpose_b ? k : 1, args.transpose_b ? 1 : n};
        LaunchTiledProduct(a, b, out, k, stream);
      });
    });
  });
}

void Fp8GemmCuda(const Fp8GemmArgs& args, Stream& stream) {
  if (!RunOnLibrary(args, stream)) Fp8GemmTiled(args, stream);
}

}  // namespace trainyard::kernels::internal
