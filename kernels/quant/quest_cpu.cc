#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/core/simd.h"
#include "kernels/quant/float_block.h"
#include "kernels/quant/quest_internal.h"
#include "kernels/transform/hadamard_internal.h"

namespace trainyard::kernels::internal {
namespace {

constexpr int kWidth = 2 * kLanes;  // partial sums of a row's squares, by column mod kWidth

TY_SIMD void AddSquares(const float* v, int64_t count, float* sums) {
  float lanes[kWidth];
  for (int lane = 0; lane < kWidth; ++lane) lanes[lane] = sums[lane];
  const int64_t whole = count / kWidth * kWidth;
  for (int64_t i = 0; i < whole; i += kWidth) {
    for (int lane = 0; lane < kWidth; ++lane) lanes[lane] = __builtin_fmaf(v[i + lane], v[i + lane], lanes[lane]);
  }
  for (int64_t i = whole; i < count; ++i) lanes[i - whole] = __builtin_fmaf(v[i], v[i], lanes[i - whole]);
  for (int lane = 0; lane < kWidth; ++lane) sums[lane] = lanes[lane];
}

// max |v| as bits, whose order is that of magnitudes with NaN above all.
TY_SIMD uint32_t LargestMagnitude(const float* v, int64_t count, uint32_t largest) {
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t magnitude = __builtin_bit_cast(uint32_t, v[i]) & 0x7FFFFFFF;
    largest = magnitude > largest ? magnitude : largest;
  }
  return largest;
}

float Total(float* sums) {
  for (int width = kWidth / 2; width > 0; width /= 2) {
    for (int lane = 0; lane < width; ++lane) sums[lane] += sums[lane + width];
  }
  return sums[0];
}

TY_SIMD void Levels(const float* v, int64_t count, float step, float lowest, float highest, float* levels) {
  for (int64_t i = 0; i < count; ++i) levels[i] = QuestLevel(v[i], step, lowest, highest);
}
TY_SIMD void LevelCodes(const float* levels, int64_t count, uint8_t* codes) {
  for (int64_t i = 0; i < count; ++i) codes[i] = static_cast<uint8_t>(static_cast<int32_t>(levels[i]) - 1);
}
TY_SIMD void LevelValues(float* levels, int64_t count, float step) {
  for (int64_t i = 0; i < count; ++i) levels[i] = QuestLevelValue(levels[i], step);
}
TY_SIMD void Fp4Codes(const float* v, int64_t count, float step, uint8_t* codes) {
  for (int64_t i = 0; i < count; ++i) codes[i] = E2M1Code(v[i] / step);
}
TY_SIMD void Fp4Values(const uint8_t* codes, int64_t count, float step, float* values) {
  for (int64_t i = 0; i < count; ++i) values[i] = QuestFp4Value(codes[i], step);
}
TY_SIMD void IntValues(const uint8_t* codes, int64_t count, float step, float* values) {
  for (int64_t i = 0; i < count; ++i) values[i] = QuestIntValue(static_cast<int8_t>(codes[i]), step);
}
TY_SIMD int32_t SumCodes(const uint8_t* codes, int64_t count) {
  int32_t sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += static_cast<int8_t>(codes[i]);
  return sum;
}

TY_SIMD void KeepPairs(const float* v, int64_t count, uint8_t* kept) {
  for (int64_t first = 0; first < count; first += 8) {
    const uint64_t word = QuestKeptBytes(v + first);
    std::memcpy(kept + first, &word, sizeof(word));
  }
}
TY_SIMD void DropValues(const uint8_t* kept, int64_t count, float* values) {
  for (int64_t i = 0; i < count; ++i) values[i] = kept[i] != 0 ? values[i] : 0.0f;
}
TY_SIMD void DropCodes(const uint8_t* kept, int64_t count, uint8_t* codes) {
  for (int64_t i = 0; i < count; ++i) codes[i] = kept[i] != 0 ? codes[i] : 0;
}

// |v - values| <= limit. Values come from memory, so they are rounded before the subtraction.
TY_SIMD void NearMask(const float* v, const float* values, int64_t count, float limit, uint8_t* passes) {
  for (int64_t i = 0; i < count; ++i) passes[i] = __builtin_fabsf(v[i] - values[i]) <= limit ? 1 : 0;
}
TY_SIMD void InsideMask(const float* v, int64_t count, float limit, uint8_t* passes) {
  for (int64_t i = 0; i < count; ++i) passes[i] = __builtin_fabsf(v[i]) <= limit ? 1 : 0;
}

// Elements at .. at + count - 1, rotated if that is asked for. A block begins and ends between groups.
const float* LoadRotated(const QuestQuantizeArgs& args, int64_t at, int64_t count, float* buffer) {
  const float* const loaded = LoadFloats(args.v, at, count, buffer);
  if (args.rotate_group == 0) return loaded;
  RotateFloats(loaded, count, args.rotate_group, buffer);
  return buffer;
}

QuestRow RowOf(const QuestQuantizeArgs& args, int64_t row, const QuestPlan& plan) {
  if (args.format.clip == QuestClip::kGiven) return plan.OfStep(args.steps.as<float>()[row]);
  const int64_t cols = args.v.dim(1);
  float sums[kWidth] = {};
  uint32_t largest = 0;
  float buffer[kFloatBlock];
  for (int64_t first = 0; first < cols; first += kFloatBlock) {
    const int64_t count = std::min(kFloatBlock, cols - first);
    const int64_t at = row * cols + first;
    if (args.format.clip == QuestClip::kAbsMax) {
      largest = LargestMagnitude(LoadRotated(args, at, count, buffer), count, largest);
    } else {
      AddSquares(LoadFloats(args.v, at, count, buffer), count, sums);
    }
  }
  if (args.format.clip == QuestClip::kAbsMax) return plan.OfLargest(__builtin_bit_cast(float, largest));
  return plan.OfRms(std::sqrt(Total(sums) / static_cast<float>(cols)));
}

void MaskBlock(const QuestPassing& passing, const float* v, const float* values, int64_t count, uint8_t* passes) {
  switch (passing.kind) {
    case QuestPassing::Kind::kNear:
      return NearMask(v, values, count, passing.limit, passes);
    case QuestPassing::Kind::kInside:
      return InsideMask(v, count, passing.limit, passes);
    case QuestPassing::Kind::kAlways:
      std::memset(passes, 1, static_cast<size_t>(count));
  }
}

void QuantizeRow(const QuestQuantizeArgs& args, const QuestPlan& plan, int64_t r) {
  const int64_t cols = args.v.dim(1);
  const int64_t bit_bytes = PackedBytes(cols, 1);
  const QuestRow row = RowOf(args, r, plan);
  const QuestPassing passing = QuestPassingOf(plan, row);
  args.steps.as<float>()[r] = row.step;
  int32_t code_sum = 0;
  float loaded[kFloatBlock];
  float values[kFloatBlock];
  uint8_t codes[kFloatBlock];
  uint8_t bits[kFloatBlock];
  for (int64_t first = 0; first < cols; first += kFloatBlock) {
    const int64_t count = std::min(kFloatBlock, cols - first);
    const int64_t at = r * cols + first;
    const float* v = LoadRotated(args, at, count, loaded);
    if (plan.is_int) {
      Levels(v, count, row.step, plan.lowest, plan.highest, values);
      if (args.codes || args.code_sums) LevelCodes(values, count, codes);
      LevelValues(values, count, row.step);
    } else {
      Fp4Codes(v, count, row.step, codes);
      Fp4Values(codes, count, row.step, values);
    }
    if (args.code_sums) code_sum += SumCodes(codes, count);
    if (args.format.is_2_4_sparse) {
      KeepPairs(v, count, bits);
      DropValues(bits, count, values);
      if (args.codes) DropCodes(bits, count, codes);
      if (args.kept) PackCodes(bits, count, 1, args.kept.as<uint8_t>() + r * bit_bytes + first / 8);
    }
    if (args.codes) std::memcpy(args.codes.as<uint8_t>() + at, codes, static_cast<size_t>(count));
    if (args.mask) {
      MaskBlock(passing, v, values, count, bits);
      PackCodes(bits, count, 1, args.mask.as<uint8_t>() + r * bit_bytes + first / 8);
    }
    if (args.values && args.values.dtype() == DType::kF32) {
      std::memcpy(args.values.as<float>() + at, values, static_cast<size_t>(count) * sizeof(float));
    } else if (args.values) {
      StoreFloats(values, args.values, at, count);
    }
  }
  if (args.code_sums) args.code_sums.as<int32_t>()[r] = code_sum;
}

int64_t RowGrain(int64_t cols) {
  return std::max<int64_t>(1, 8 * kFloatBlock / std::max<int64_t>(1, cols));
}

}  // namespace

void QuestQuantizeCpu(const QuestQuantizeArgs& args, Stream& stream) {
  const QuestPlan plan(args.format);
  stream.pool().ParallelFor(args.v.dim(0), RowGrain(args.v.dim(1)), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) QuantizeRow(args, plan, r);
  });
}

void QuestDequantizeCpu(const QuestDequantizeArgs& args, Stream& stream) {
  const int64_t cols = args.codes.dim(1);
  const uint8_t* codes = args.codes.as<uint8_t>();
  const float* steps = args.steps.as<float>();
  stream.pool().ParallelFor(args.codes.dim(0), RowGrain(cols), [&](int64_t begin, int64_t end) {
    float buffer[kFloatBlock];
    uint8_t kept[kFloatBlock];
    for (int64_t r = begin; r < end; ++r) {
      for (int64_t first = 0; first < cols; first += kFloatBlock) {
        const int64_t count = std::min(kFloatBlock, cols - first);
        const int64_t at = r * cols + first;
        float* values = FloatsOf(args.values, at, buffer);
        (args.grid == QuestGrid::kInt ? IntValues : Fp4Values)(codes + at, count, steps[r], values);
        if (args.kept) {
          UnpackCodes(args.kept.as<uint8_t>() + r * PackedBytes(cols, 1) + first / 8, count, 1, kept);
          DropValues(kept, count, values);
        }
        StoreFloats(values, args.values, at, count);
      }
    }
  });
}

}  // namespace trainyard::kernels::internal
