#include "kernels/core/dispatch.h"
#include "kernels/core/simd.h"
#include "kernels/gemm/fp8_gemm_internal.h"
#include "kernels/gemm/gemm.h"
#include "kernels/quant/number_format.h"

namespace trainyard::kernels {
namespace internal {
namespace {

template <typename Code, typename T>
TY_INLINE void WidenCodes(const Code* codes, int64_t count, T* values) {
  for (int64_t i = 0; i < count; ++i) values[i] = FromFloat<T>(WidenToFloat(codes[i]));
}
TY_SIMD void WidenFp8(const Float8E4M3* codes, int64_t count, BFloat16* values) {
  WidenCodes(codes, count, values);
}
TY_SIMD void WidenFp8(const Float8E5M2* codes, int64_t count, BFloat16* values) {
  WidenCodes(codes, count, values);
}
TY_SIMD void WidenFp8(const Float8E4M3* codes, int64_t count, float* values) {
  WidenCodes(codes, count, values);
}
TY_SIMD void WidenFp8(const Float8E5M2* codes, int64_t count, float* values) {
  WidenCodes(codes, count, values);
}

// The codes as numbers in `memory`.
TensorView Widened(const TensorView& codes, DType dtype, void* memory, Stream& stream) {
  const TensorView values(memory, dtype, {codes.dim(0), codes.dim(1)});
  DispatchFloat(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    T* to = values.as<T>();
    stream.pool().ParallelFor(codes.size(), 1 << 14, [&](int64_t begin, int64_t end) {
      if (codes.dtype() == DType::kF8E4M3) {
        WidenFp8(codes.as<Float8E4M3>() + begin, end - begin, to + begin);
      } else {
        WidenFp8(codes.as<Float8E5M2>() + begin, end - begin, to + begin);
      }
    });
  });
  return values;
}

int64_t ValueBytes(DType dtype, int64_t elements) {
  return (static_cast<int64_t>(SizeOf(dtype)) * elements + 63) / 64 * 64;
}

}  // namespace

void Fp8GemmCpu(const Fp8GemmArgs& args, Stream& stream) {
  char* memory = static_cast<char*>(args.workspace.data());
  const int64_t a_bytes = ValueBytes(args.widened, args.a.size());
  const int64_t b_bytes = ValueBytes(args.widened, args.b.size());
  const int64_t rest =
      GemmWorkspaceBytes(args.widened, args.c.dim(0), args.c.dim(1), args.a.dim(args.transpose_a ? 0 : 1));
  Gemm({.a = Widened(args.a, args.widened, memory, stream),
        .b = Widened(args.b, args.widened, memory + a_bytes, stream),
        .c = args.c,
        .transpose_a = args.transpose_a,
        .transpose_b = args.transpose_b,
        .alpha = args.alpha * (args.a_inverse.as<float>()[0] * args.b_inverse.as<float>()[0]),
        .beta = args.beta,
        .bias = args.bias,
        .workspace = TensorView(memory + a_bytes + b_bytes, DType::kU8, {rest})},
       stream);
}

}  // namespace internal

int64_t Fp8GemmWorkspaceBytes(DType widened, int64_t m, int64_t n, int64_t k) {
  return internal::ValueBytes(widened, m * k) + internal::ValueBytes(widened, n * k) +
         GemmWorkspaceBytes(widened, m, n, k);
}

}  // namespace trainyard::kernels
