#include <limits>

#include "kernels/codec/bucket_wire_cuda.h"
#include "kernels/codec/code.h"
#include "kernels/codec/level_code_internal.h"

namespace trainyard::kernels::internal {
namespace {

// The levels, then infinities, as in level_code_cpu.cc.
struct LevelTable {
  float level[kMostLevels + 1];
};

LevelTable TableOf(absl::Span<const float> levels) {
  LevelTable table;
  for (size_t i = 0; i <= static_cast<size_t>(kMostLevels); ++i) {
    table.level[i] = i < levels.size() ? levels[i] : std::numeric_limits<float>::infinity();
  }
  return table;
}

struct LevelCodeOnDevice {
  using Record = float;
  LevelTable table;
  int32_t sign_bit;  // as many slots as the index has
  bool is_l2;
  PhiloxKey random;
  int64_t first_element;
  const float* levels;  // the table in shared memory: lanes read different entries

  __device__ void Prepare() {
    __shared__ float shared[kMostLevels + 1];
    for (int i = static_cast<int>(threadIdx.x); i <= kMostLevels; i += static_cast<int>(blockDim.x)) {
      shared[i] = table.level[i];
    }
    __syncthreads();
    levels = shared;
  }

  __device__ float Summarise(const float* x, int count) const {
    const int lane = static_cast<int>(threadIdx.x % 32);
    if (is_l2) {
      double sum = 0;
      for (int i = lane; i < count; i += 32) {  // squares of floats are exact in f64
        const double value = static_cast<double>(x[i]);
        sum += value * value;
      }
      return FiniteOrNan(sqrt(SumOverLanes(sum)));
    }
    uint32_t largest = 0;
    for (int i = lane; i < count; i += 32) {
      const uint32_t bits = FloatMagnitudeBits(x[i]);
      largest = bits > largest ? bits : largest;
    }
    return FiniteOrNan(static_cast<double>(__builtin_bit_cast(float, WarpReduce(largest, Max()))));
  }

  // Search by halves for the last level that is not above u.
  __device__ void Codes(float norm, const float (&x)[8], int64_t first, int32_t (&codes)[8]) const {
    if (!(norm > 0.0f)) {
      for (int j = 0; j < 8; ++j) codes[j] = 0;
      return;
    }
    float draws[8];
    DrawEight(random, first_element + first, draws);
    for (int j = 0; j < 8; ++j) {
      const float u = __builtin_fabsf(x[j]) / norm;
      int32_t index = 0;
      for (int32_t half = sign_bit / 2; half > 0; half /= 2) {
        if (u >= levels[index + half]) index += half;
      }
      index += GoesToUpperLevel(u, levels[index], levels[index + 1], draws[j]) ? 1 : 0;
      codes[j] = SignedCode(x[j], index, sign_bit);
    }
  }

  // A GPU's NaN has bits of its own: those of the CPU are written out.
  __device__ void Values(float norm, const int32_t (&codes)[8], float (&y)[8]) const {
    for (int j = 0; j < 8; ++j) y[j] = norm != norm ? norm : LevelValue(codes[j], sign_bit, levels, norm);
  }
};

LevelCodeOnDevice CodeOf(const LevelFormat& format, const PhiloxKey& random, int64_t first_element) {
  return {TableOf(format.levels),
          1 << (LevelBits(format.levels.size()) - 1),
          format.norm == LevelNorm::kL2,
          random,
          first_element,
          nullptr};
}

}  // namespace

void LevelEncodeCuda(const LevelEncodeArgs& args, Stream& stream) {
  EncodeBucketsCuda(args.format.WireOf(args.x.size()), CodeOf(args.format, args.random, args.first_element),
                    args.x.as<float>(), args.wire.as<uint8_t>(), stream);
}

void LevelDecodeCuda(const LevelDecodeArgs& args, Stream& stream) {
  DecodeBucketsCuda(args.format.WireOf(args.y.size()), CodeOf(args.format, {}, 0), args.wire.as<uint8_t>(),
                    args.y.as<float>(), stream);
}

}  // namespace trainyard::kernels::internal
