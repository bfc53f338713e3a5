#include <algorithm>

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

TY_SIMD void GroupLargest(const float* x, int64_t groups, float* largest) {
  for (int64_t g = 0; g < groups; ++g) largest[g] = NvGroupLargest(x + g * kNvGroup);
}

TY_SIMD void Scales(const float* largest, int64_t groups, NvPlan plan, float times, float* scales) {
  for (int64_t g = 0; g < groups; ++g) scales[g] = NvGroupScale(largest[g], plan, times);
}

TY_SIMD void InUnits(const float* x, const float* scales, int64_t groups, float tensor_scale, float* u) {
  for (int64_t g = 0; g < groups; ++g) {
    const float inverse = NvInverse(scales[g], tensor_scale);
    for (int64_t i = g * kNvGroup; i < (g + 1) * kNvGroup; ++i) u[i] = x[i] * inverse;
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

// The elements and groups of one call to Encode and what they become.
struct Block {
  int64_t first = 0;   // element of the tensor
  int64_t groups = 0;  // <= kBlockGroups
  const float* x = nullptr;
  float largest[kBlockGroups];
  float scales[kBlockGroups];
  float levels[kFloatBlock];

  int64_t count() const { return groups * kNvGroup; }
};

void NearestLevels(const float* x, const float* scales, int64_t groups, const NvPlan& plan, float* levels) {
  InUnits(x, scales, groups, plan.tensor_scale, levels);
  Fp4NearestLevels(levels, groups * kNvGroup, levels);
}

// `words_from`: the word of the tensor's first element.
void StochasticLevels(const NvQuantizeArgs& args, const NvPlan& plan, const Block& block, const float* scales,
                      int64_t words_from, float* levels) {
  uint32_t words[RandomBufferWords(kFloatBlock)];
  InUnits(block.x, scales, block.groups, plan.tensor_scale, levels);
  Fp4StochasticLevels(levels,
                      RandomWords(args.random, static_cast<uint64_t>(words_from + block.first), block.count(), words),
                      block.count(), levels);
}

// The other scale and levels where their error is smaller. Without branches: which one wins cannot be foretold.
TY_SIMD void TakeSmallerError(const float* errors, const float* other_errors, int64_t groups, const float* other_scales,
                              const float* other_levels, float* scales, float* levels) {
  const auto choose = [](uint32_t takes_other, float other, float mine) TY_INLINE_LAMBDA {
    return __builtin_bit_cast(float, (__builtin_bit_cast(uint32_t, other) & takes_other) |
                                         (__builtin_bit_cast(uint32_t, mine) & ~takes_other));
  };
  for (int64_t g = 0; g < groups; ++g) {
    const uint32_t takes_other = 0u - static_cast<uint32_t>(other_errors[g] < errors[g]);
    scales[g] = choose(takes_other, other_scales[g], scales[g]);
    for (int64_t i = g * kNvGroup; i < (g + 1) * kNvGroup; ++i) {
      levels[i] = choose(takes_other, other_levels[i], levels[i]);
    }
  }
}

void TakeBetter(const float* other_scales, const float* other_levels, const NvPlan& plan, Block& block) {
  float errors[kBlockGroups];
  float other_errors[kBlockGroups];
  SquaredErrors(block.x, block.levels, block.scales, block.groups, plan.tensor_scale, errors);
  SquaredErrors(block.x, other_levels, other_scales, block.groups, plan.tensor_scale, other_errors);
  TakeSmallerError(errors, other_errors, block.groups, other_scales, other_levels, block.scales, block.levels);
}

// Sums of u^2 and of u level for every group.
TY_SIMD void EdenSums(const float* u, const float* levels, int64_t groups, float* squares, float* products) {
  for (int64_t g = 0; g < groups; ++g) {
    squares[g] = NvGroupDot(u + g * kNvGroup, u + g * kNvGroup);
    products[g] = NvGroupDot(u + g * kNvGroup, levels + g * kNvGroup);
  }
}

TY_SIMD void RoundScales(const uint32_t* words, int64_t groups, Overflow overflow, float* scales) {
  for (int64_t g = 0; g < groups; ++g) {
    scales[g] = WidenToFloat(RoundStochastic<Float8E4M3>(scales[g], words[g], overflow));
  }
}

// Levels, and s8 -> SR_E4M3(S s8).
void EncodeEden(const NvQuantizeArgs& args, const NvPlan& plan, Block& block) {
  float u[kFloatBlock];
  float squares[kBlockGroups];
  float products[kBlockGroups];
  InUnits(block.x, block.scales, block.groups, plan.tensor_scale, u);
  Fp4NearestLevels(u, block.count(), block.levels);
  EdenSums(u, block.levels, block.groups, squares, products);
  const int64_t span = args.format.eden_group / kNvGroup;
  for (int64_t g = 0; g < block.groups; g += span) {
    for (int64_t other = g + 1; other < g + span; ++other) {
      squares[g] += squares[other];
      products[g] += products[other];
    }
    const float factor = EdenFactor(squares[g], products[g]);
    for (int64_t member = g; member < g + span; ++member) block.scales[member] *= factor;
  }
  uint32_t buffer[RandomBufferWords(kBlockGroups)];
  const auto first_group = static_cast<uint64_t>(block.first / kNvGroup);
  RoundScales(RandomWords(args.random, first_group, block.groups, buffer), block.groups, Overflow::kSaturate,
              block.scales);
}

// Scales and levels of a block of runs.
void Encode(const NvQuantizeArgs& args, const NvPlan& plan, Block& block) {
  float other_scales[kBlockGroups];
  float other_levels[kFloatBlock];
  GroupLargest(block.x, block.groups, block.largest);
  Scales(block.largest, block.groups, plan, 1.0f, block.scales);
  switch (args.format.method) {
    case NvMethod::kNearest:
      return NearestLevels(block.x, block.scales, block.groups, plan, block.levels);
    case NvMethod::kFourOverSix:
      NearestLevels(block.x, block.scales, block.groups, plan, block.levels);
      Scales(block.largest, block.groups, plan, 1.5f, other_scales);
      NearestLevels(block.x, other_scales, block.groups, plan, other_levels);
      return TakeBetter(other_scales, other_levels, plan, block);
    case NvMethod::kStochastic:
      return StochasticLevels(args, plan, block, block.scales, /*words_from=*/0, block.levels);
    case NvMethod::kStochasticFourOverSix:
      StochasticLevels(args, plan, block, block.scales, /*words_from=*/0, block.levels);
      Scales(block.largest, block.groups, plan, 1.5f, other_scales);
      StochasticLevels(args, plan, block, other_scales, /*words_from=*/args.x.size(), other_levels);
      return TakeBetter(other_scales, other_levels, plan, block);
    case NvMethod::kMsEden:
      return EncodeEden(args, plan, block);
  }
}

void Emit(const NvQuantizeArgs& args, const Block& block) {
  if (args.packed) {
    uint8_t codes[kFloatBlock];
    Fp4NearestCodes(block.levels, block.count(), codes);
    PackCodes(codes, block.count(), 4, args.packed.as<uint8_t>() + block.first / 2);
  }
  if (args.scales) {
    Float8E4M3* stored = args.scales.as<Float8E4M3>() + block.first / kNvGroup;
    for (int64_t g = 0; g < block.groups; ++g) {
      stored[g] = RoundNearest<Float8E4M3>(block.scales[g], Overflow::kSaturate);
    }
  }
  if (args.values) {
    float buffer[kFloatBlock];
    float* values = FloatsOf(args.values, block.first, buffer);
    Fp4ScaleLevels(block.levels, block.scales, block.count(), kNvGroup, values);
    StoreFloats(values, args.values, block.first, block.count());
  }
}

// s8 of a block of 16 x 16 whose rows are the groups of x, and its levels.
float EncodeSquare(const float* x, const NvPlan& plan, bool four_over_six, float* levels) {
  float of_rows[kSquareRows];
  GroupLargest(x, kSquareRows, of_rows);
  uint32_t bits = 0;  // NaN above all
  for (const float row : of_rows) bits = std::max(bits, __builtin_bit_cast(uint32_t, row));
  const float largest = __builtin_bit_cast(float, bits);
  const auto encode = [&](float times, float* to, float* scale) {
    float scales[kSquareRows];
    float sums[kSquareRows];
    Scales(&largest, 1, plan, times, scale);
    std::fill_n(scales, kSquareRows, *scale);
    NearestLevels(x, scales, kSquareRows, plan, to);
    if (!four_over_six) return 0.0f;
    SquaredErrors(x, to, scales, kSquareRows, plan.tensor_scale, sums);
    float error = 0;
    for (const float sum : sums) error += sum;
    return error;
  };
  float six = 0;
  const float error_of_six = encode(1.0f, levels, &six);
  if (!four_over_six) return six;
  float four = 0;
  float levels_of_four[kSquareRows * kNvGroup];
  if (!(encode(1.5f, levels_of_four, &four) < error_of_six)) return six;
  std::copy_n(levels_of_four, kSquareRows * kNvGroup, levels);
  return four;
}

void QuantizeRuns(const NvQuantizeArgs& args, const NvPlan& plan, Stream& stream) {
  stream.pool().ParallelFor(args.x.size(), 8 * kFloatBlock, [&](int64_t begin, int64_t end) {
    float loaded[kFloatBlock];
    Block block;
    for (block.first = begin; block.first < end; block.first += kFloatBlock) {
      block.groups = std::min(kFloatBlock, end - block.first) / kNvGroup;
      block.x = LoadFloats(args.x, block.first, block.count(), loaded);
      Encode(args, plan, block);
      Emit(args, block);
    }
  });
}

// A stripe of 16 rows at a time, kStripeSquares squares of it.
void QuantizeSquares(const NvQuantizeArgs& args, const NvPlan& plan, Stream& stream) {
  constexpr int64_t kStripeSquares = 8;
  const int64_t cols = args.x.dim(1);
  stream.pool().ParallelFor(args.x.dim(0) / kSquareRows, 1, [&](int64_t begin, int64_t end) {
    Block block;
    float buffer[kNvGroup];
    float square[kSquareRows * kNvGroup];
    float scales[kStripeSquares];
    float levels[kStripeSquares][kSquareRows * kNvGroup];
    for (int64_t stripe = begin; stripe < end; ++stripe) {
      for (int64_t first_col = 0; first_col < cols; first_col += kStripeSquares * kNvGroup) {
        const int64_t top = stripe * kSquareRows * cols + first_col;
        block.groups = std::min(kStripeSquares, (cols - first_col) / kNvGroup);
        for (int64_t s = 0; s < block.groups; ++s) {
          for (int64_t r = 0; r < kSquareRows; ++r) {
            const float* row = LoadFloats(args.x, top + r * cols + s * kNvGroup, kNvGroup, buffer);
            std::copy_n(row, kNvGroup, square + r * kNvGroup);
          }
          scales[s] = EncodeSquare(square, plan, args.format.method == NvMethod::kFourOverSix, levels[s]);
        }
        std::copy_n(scales, block.groups, block.scales);
        for (int64_t r = 0; r < kSquareRows; ++r) {
          for (int64_t s = 0; s < block.groups; ++s) {
            std::copy_n(levels[s] + r * kNvGroup, kNvGroup, block.levels + s * kNvGroup);
          }
          block.first = top + r * cols;
          Emit(args, block);
        }
      }
    }
  });
}

}  // namespace

void NvQuantizeCpu(const NvQuantizeArgs& args, Stream& stream) {
  const NvPlan plan = MakeNvPlan(args.format, args.amax.as<float>()[0]);
  args.tensor_scale.as<float>()[0] = plan.tensor_scale * (args.x_scale ? args.x_scale.as<float>()[0] : 1.0f);
  (args.format.block == NvBlock::k16x16 ? QuantizeSquares : QuantizeRuns)(args, plan, stream);
}

}  // namespace trainyard::kernels::internal
