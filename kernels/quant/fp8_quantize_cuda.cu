#include "kernels/core/launch.h"
#include "kernels/quant/chunk.h"
#include "kernels/quant/fp8_quantize_internal.h"

namespace trainyard::kernels::internal {
namespace {

constexpr int kChunk = 4;

struct QuantizePlan {
  Floats x;
  const float* amax;
  float target;
  Rounding rounding;
  PhiloxKey random;
  float* inverse;  // null: not here
  Floats values;
  int64_t scales, span;  // elements of one scale
};

template <typename Y>
__global__ void QuantizeKernel(QuantizePlan plan, Y* codes) {
  for (int64_t row = blockIdx.y; row < plan.scales; row += gridDim.y) {
    const float amax = Fp8UsedAmax(plan.amax[row]);
    const float scale = plan.target / amax;
    if (plan.inverse != nullptr) {
      // `inverse` may be `amax`, but then no other block reads this row's.
      __syncthreads();
      if (blockIdx.x == 0 && threadIdx.x == 0) plan.inverse[row] = amax / plan.target;
    }
    for (int64_t column = GlobalThread() * kChunk; column < plan.span; column += GlobalThreads() * kChunk) {
      const int64_t first = row * plan.span + column;
      const int64_t count = plan.span - column;
      float values[kChunk];
      Y rounded[kChunk];
      Load<kChunk>(plan.x, first, count, values);
      TY_UNROLL
      for (int i = 0; i < kChunk; ++i) values[i] *= scale;
      if (plan.rounding == Rounding::kNearestEven) {
        TY_UNROLL
        for (int i = 0; i < kChunk; ++i) rounded[i] = RoundNearest<Y>(values[i], Overflow::kSaturate);
      } else {
        uint32_t words[kChunk];
        FourWords(plan.random, first, words);
        TY_UNROLL
        for (int i = 0; i < kChunk; ++i) rounded[i] = RoundStochastic<Y>(values[i], words[i], Overflow::kSaturate);
      }
      StoreChunk<kChunk>(rounded, count, codes + first);
      if (plan.values.data != nullptr) {
        TY_UNROLL
        for (int i = 0; i < kChunk; ++i) values[i] = WidenToFloat(rounded[i]);
        Store<kChunk>(values, plan.values, first, count);
      }
    }
  }
}

__global__ void InverseKernel(const float* amax, int64_t count, float target, float* inverse) {
  for (int64_t i = GlobalThread(); i < count; i += GlobalThreads()) inverse[i] = Fp8UsedAmax(amax[i]) / target;
}

template <typename X>
__global__ void DequantizeKernel(const X* codes, const float* inverse, Floats y, int64_t scales, int64_t span) {
  ForRowChunks<kChunk>(scales, span, [&](int64_t row, int64_t column, int64_t count) {
    const int64_t first = row * span + column;
    const float scale = inverse[row];
    X stored[kChunk];
    float values[kChunk];
    LoadChunk<kChunk>(codes + first, count, stored);
    TY_UNROLL
    for (int i = 0; i < kChunk; ++i) values[i] = WidenToFloat(stored[i]) * scale;
    Store<kChunk>(values, y, first, count);
  });
}

// Calls body(a null pointer to the type of the codes).
template <typename Body>
void DispatchFp8(DType dtype, const Body& body) {
  if (dtype == DType::kF8E4M3) return body(static_cast<Float8E4M3*>(nullptr));
  body(static_cast<Float8E5M2*>(nullptr));
}

}  // namespace

void Fp8QuantizeCuda(const Fp8QuantizeArgs& args, Stream& stream) {
  const int64_t scales = args.amax.size();
  if (scales == 0) return;
  const int64_t span = args.x.size() / scales;
  const Grid grid = RowChunkGrid(scales, (span + kChunk - 1) / kChunk);
  const float* const amax = args.amax.as<float>();
  float* const inverse = args.inverse.as<float>();
  // The blocks of one row all read its amax; only where there is one of them may it write over it.
  const bool is_inverse_apart = amax == inverse && grid.blocks > 1;
  const QuantizePlan plan = {.x = args.x,
                             .amax = amax,
                             .target = args.target,
                             .rounding = args.rounding,
                             .random = args.random,
                             .inverse = is_inverse_apart ? nullptr : inverse,
                             .values = args.values,
                             .scales = scales,
                             .span = span};
  DispatchFp8(args.codes.dtype(), [&](auto* type) {
    using Y = std::remove_pointer_t<decltype(type)>;
    Launch(stream, grid, QuantizeKernel<Y>, plan, args.codes.as<Y>());
  });
  if (is_inverse_apart) {
    Launch(stream, ElementwiseGrid(scales), InverseKernel, amax, scales, args.target, inverse);
  }
}

void Fp8DequantizeCuda(const Fp8DequantizeArgs& args, Stream& stream) {
  const int64_t scales = args.inverse.size();
  if (scales == 0 || args.codes.size() == 0) return;
  const int64_t span = args.codes.size() / scales;
  DispatchFp8(args.codes.dtype(), [&](auto* type) {
    using X = std::remove_pointer_t<decltype(type)>;
    Launch(stream, RowChunkGrid(scales, (span + kChunk - 1) / kChunk), DequantizeKernel<X>, args.codes.as<X>(),
           args.inverse.as<float>(), Floats(args.y), scales, span);
  });
}

}  // namespace trainyard::kernels::internal
