#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/codec/bit_packing.h"
#include "kernels/codec/random_words.h"
#include "kernels/core/simd.h"
#include "kernels/quant/float_block.h"
#include "kernels/quant/fp4_groups_internal.h"
#include "kernels/quant/nvfp4_formula.h"
#include "kernels/quant/nvfp4_internal.h"

namespace trainyard::kernels::internal {
namespace {

constexpr int64_t kBlockGroups = kFloatBlock / kNvGroup;
constexpr int64_t kSquareRows = 16;

struct Plan {
  Plan(const NvFormat& format, float amax) : range(NvRangeOf(format)), tensor_scale(NvTensorScale(amax, range)) {}
  NvRange range;
  float tensor_scale;
};

// s8 of every group; `times` 1.5 for the alternative that maps the largest magnitude to 4.
TY_SIMD void ScaleCodes(const float* x, int64_t groups, Plan plan, float times, uint8_t* codes) {
  for (int64_t g = 0; g < groups; ++g) {
    codes[g] = NvScaleCode(times * NvGroupLargest(x + g * kNvGroup) / plan.range.range / plan.tensor_scale);
  }
}

TY_SIMD void InUnits(const float* x, const float* scales, int64_t groups, float tensor_scale, float* u) {
  for (int64_t g = 0; g < groups; ++g) {
    const float scale = scales[g] * tensor_scale;
    for (int64_t i = g * kNvGroup; i < (g + 1) * kNvGroup; ++i) u[i] = x[i] / scale;
  }
}

TY_SIMD void SquaredErrors(const float* x, const float* levels, const float* scales, int64_t groups, float tensor_scale,
                           float* sums) {
  for (int64_t g = 0; g < groups; ++g) {
    const float scale = scales[g] * tensor_scale;
    float errors[kNvGroup];
    for (int64_t i = 0; i < kNvGroup; ++i) errors[i] = NvError(x[g * kNvGroup + i], levels[g * kNvGroup + i], scale);
    sums[g] = NvGroupDot(errors, errors);
  }
}

// Sum of squared errors of every group with its s8, rounded to nearest. groups <= kBlockGroups.
void GroupErrors(const float* x, int64_t groups, const Plan& plan, const uint8_t* scale_codes, float* sums) {
  float scales[kBlockGroups];
  float u[kFloatBlock];
  uint8_t codes[kFloatBlock];
  for (int64_t g = 0; g < groups; ++g) scales[g] = NvScaleValue(scale_codes[g]);
  InUnits(x, scales, groups, plan.tensor_scale, u);
  Fp4NearestCodes(u, groups * kNvGroup, codes);
  Fp4Levels(codes, groups * kNvGroup, u);
  SquaredErrors(x, u, scales, groups, plan.tensor_scale, sums);
}

void FourOverSixScaleCodes(const float* x, int64_t groups, const Plan& plan, uint8_t* codes) {
  uint8_t four[kBlockGroups];
  float errors_of_four[kBlockGroups];
  float errors_of_six[kBlockGroups];
  ScaleCodes(x, groups, plan, 1.0f, codes);
  ScaleCodes(x, groups, plan, 1.5f, four);
  GroupErrors(x, groups, plan, codes, errors_of_six);
  GroupErrors(x, groups, plan, four, errors_of_four);
  for (int64_t g = 0; g < groups; ++g) codes[g] = errors_of_four[g] < errors_of_six[g] ? four[g] : codes[g];
}

// s8 of 16 groups together.
TY_SIMD uint8_t SquareCode(const float* x, Plan plan, float times) {
  uint32_t bits = 0;
  for (int64_t g = 0; g < kSquareRows; ++g) {
    bits = std::max(bits, __builtin_bit_cast(uint32_t, NvGroupLargest(x + g * kNvGroup)));
  }
  return NvScaleCode(times * __builtin_bit_cast(float, bits) / plan.range.range / plan.tensor_scale);
}

// The code of a block of 16 x 16 whose rows are the groups of x.
uint8_t SquareScaleCode(const float* x, const Plan& plan, bool four_over_six) {
  const uint8_t six = SquareCode(x, plan, 1.0f);
  if (!four_over_six) return six;
  const uint8_t four = SquareCode(x, plan, 1.5f);
  const auto error_of = [&](uint8_t code) {
    uint8_t codes[kSquareRows];
    float sums[kSquareRows];
    std::memset(codes, code, kSquareRows);
    GroupErrors(x, kSquareRows, plan, codes, sums);
    float error = 0;
    for (const float sum : sums) error += sum;
    return error;
  };
  return error_of(four) < error_of(six) ? four : six;
}

// Sums of u^2 and of u level for every group.
TY_SIMD void EdenSums(const float* u, const float* levels, int64_t groups, float* squares, float* products) {
  for (int64_t g = 0; g < groups; ++g) {
    squares[g] = NvGroupDot(u + g * kNvGroup, u + g * kNvGroup);
    products[g] = NvGroupDot(u + g * kNvGroup, levels + g * kNvGroup);
  }
}

// s8 -> SR_E4M3(S s8), in place.
void EdenScales(const NvQuantizeArgs& args, const float* u, const uint8_t* codes, int64_t first_group, int64_t groups,
                float* scales) {
  float squares[kBlockGroups];
  float products[kBlockGroups];
  float levels[kFloatBlock];
  Fp4Levels(codes, groups * kNvGroup, levels);
  EdenSums(u, levels, groups, squares, products);
  const int64_t span = args.format.eden_group / kNvGroup;
  for (int64_t g = 0; g < groups; g += span) {
    for (int64_t other = g + 1; other < g + span; ++other) {
      squares[g] += squares[other];
      products[g] += products[other];
    }
    const float factor = EdenFactor(squares[g], products[g]);
    for (int64_t member = g; member < g + span; ++member) scales[member] *= factor;
  }
  uint32_t buffer[RandomBufferWords(kBlockGroups)];
  const uint32_t* words = RandomWords(args.random, static_cast<uint64_t>(first_group), groups, buffer);
  for (int64_t g = 0; g < groups; ++g) {
    scales[g] = WidenToFloat(RoundStochastic<Float8E4M3>(scales[g], words[g], Overflow::kSaturate));
  }
}

// u and codes of elements first .. first + count - 1 in units of the scales; `words_from`: the word of the tensor's
// first element.
void StochasticCodes(const NvQuantizeArgs& args, const Plan& plan, const float* x, const float* scales, int64_t first,
                     int64_t count, int64_t words_from, float* u, uint8_t* codes) {
  uint32_t words[RandomBufferWords(kFloatBlock)];
  InUnits(x, scales, count / kNvGroup, plan.tensor_scale, u);
  Fp4StochasticCodes(u, RandomWords(args.random, static_cast<uint64_t>(words_from + first), count, words), count,
                     codes);
}

// kStochasticFourOverSix: `scales` and `codes` come in with the first choice.
void TakeBetterOfTwo(const NvQuantizeArgs& args, const Plan& plan, const float* x, int64_t first, int64_t groups,
                     float* scales, uint8_t* codes) {
  float four[kBlockGroups];
  float errors_of_four[kBlockGroups];
  float errors_of_six[kBlockGroups];
  float u[kFloatBlock];
  uint8_t codes_of_four[kFloatBlock];
  uint8_t scale_codes[kBlockGroups];
  ScaleCodes(x, groups, plan, 1.5f, scale_codes);
  for (int64_t g = 0; g < groups; ++g) four[g] = NvScaleValue(scale_codes[g]);
  StochasticCodes(args, plan, x, four, first, groups * kNvGroup, args.x.size(), u, codes_of_four);
  Fp4Levels(codes_of_four, groups * kNvGroup, u);
  SquaredErrors(x, u, four, groups, plan.tensor_scale, errors_of_four);
  Fp4Levels(codes, groups * kNvGroup, u);
  SquaredErrors(x, u, scales, groups, plan.tensor_scale, errors_of_six);
  for (int64_t g = 0; g < groups; ++g) {
    if (!(errors_of_four[g] < errors_of_six[g])) continue;
    scales[g] = four[g];
    std::memcpy(codes + g * kNvGroup, codes_of_four + g * kNvGroup, kNvGroup);
  }
}

// Elements first .. first + count - 1 with their s8; count <= kFloatBlock, whole groups (of eden_group).
void EmitBlock(const NvQuantizeArgs& args, const Plan& plan, const float* x, const uint8_t* scale_codes, int64_t first,
               int64_t count) {
  const int64_t groups = count / kNvGroup;
  float scales[kBlockGroups];
  float u[kFloatBlock];
  uint8_t codes[kFloatBlock];
  for (int64_t g = 0; g < groups; ++g) scales[g] = NvScaleValue(scale_codes[g]);
  if (args.format.method == NvMethod::kStochastic || args.format.method == NvMethod::kStochasticFourOverSix) {
    StochasticCodes(args, plan, x, scales, first, count, /*words_from=*/0, u, codes);
    if (args.format.method == NvMethod::kStochasticFourOverSix) {
      TakeBetterOfTwo(args, plan, x, first, groups, scales, codes);
    }
  } else {
    InUnits(x, scales, groups, plan.tensor_scale, u);
    Fp4NearestCodes(u, count, codes);
  }
  if (args.format.method == NvMethod::kMsEden) EdenScales(args, u, codes, first / kNvGroup, groups, scales);
  if (args.packed) PackCodes(codes, count, 4, args.packed.as<uint8_t>() + first / 2);
  if (args.scales) {
    Float8E4M3* stored = args.scales.as<Float8E4M3>() + first / kNvGroup;
    for (int64_t g = 0; g < groups; ++g) stored[g] = RoundNearest<Float8E4M3>(scales[g], Overflow::kSaturate);
  }
  if (args.values) {
    float* values = FloatsOf(args.values, first, u);
    Fp4GroupValues(codes, scales, count, kNvGroup, values);
    StoreFloats(values, args.values, first, count);
  }
}

void QuantizeRuns(const NvQuantizeArgs& args, const Plan& plan, Stream& stream) {
  stream.pool().ParallelFor(args.x.size(), 8 * kFloatBlock, [&](int64_t begin, int64_t end) {
    float loaded[kFloatBlock];
    uint8_t scale_codes[kBlockGroups];
    for (int64_t first = begin; first < end; first += kFloatBlock) {
      const int64_t count = std::min(kFloatBlock, end - first);
      const float* x = LoadFloats(args.x, first, count, loaded);
      if (args.format.method == NvMethod::kFourOverSix) {
        FourOverSixScaleCodes(x, count / kNvGroup, plan, scale_codes);
      } else {
        ScaleCodes(x, count / kNvGroup, plan, 1.0f, scale_codes);
      }
      EmitBlock(args, plan, x, scale_codes, first, count);
    }
  });
}

void QuantizeSquares(const NvQuantizeArgs& args, const Plan& plan, Stream& stream) {
  const int64_t cols = args.x.dim(1);
  stream.pool().ParallelFor(args.x.dim(0) / kSquareRows, 1, [&](int64_t begin, int64_t end) {
    std::vector<uint8_t> scale_codes(static_cast<size_t>(cols / kNvGroup));
    float buffer[kFloatBlock];
    float square[kSquareRows * kNvGroup];
    for (int64_t stripe = begin; stripe < end; ++stripe) {
      const int64_t top = stripe * kSquareRows * cols;
      for (int64_t c = 0; c < cols; c += kNvGroup) {
        for (int64_t r = 0; r < kSquareRows; ++r) {
          const float* row = LoadFloats(args.x, top + r * cols + c, kNvGroup, buffer);
          std::memcpy(square + r * kNvGroup, row, kNvGroup * sizeof(float));
        }
        scale_codes[static_cast<size_t>(c / kNvGroup)] =
            SquareScaleCode(square, plan, args.format.method == NvMethod::kFourOverSix);
      }
      for (int64_t r = 0; r < kSquareRows; ++r) {
        for (int64_t c = 0; c < cols; c += kFloatBlock) {
          const int64_t count = std::min(kFloatBlock, cols - c);
          const int64_t first = top + r * cols + c;
          EmitBlock(args, plan, LoadFloats(args.x, first, count, buffer), scale_codes.data() + c / kNvGroup, first,
                    count);
        }
      }
    }
  });
}

}  // namespace

void NvQuantizeCpu(const NvQuantizeArgs& args, Stream& stream) {
  const Plan plan(args.format, args.amax.as<float>()[0]);
  args.tensor_scale.as<float>()[0] = plan.tensor_scale;
  (args.format.block == NvBlock::k16x16 ? QuantizeSquares : QuantizeRuns)(args, plan, stream);
}

}  // namespace trainyard::kernels::internal
