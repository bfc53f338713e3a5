// The formulas of the QuEST quantizer (arXiv:2502.05003; shared/methods/quest.md 2.2, 2.3), one row or one value at a
// time. Every backend calls these: each line is one correctly rounded operation or an explicit fused multiply-add.
#pragma once

#include <cstdint>

#include "kernels/core/simd.h"
#include "kernels/quant/e2m1.h"

namespace trainyard::kernels {

// alpha*(b) of the grids of 2^b levels without zero: the clip point, in units of the row's root mean square, that
// minimises the squared error on N(0, 1). Index b; 0 is not a width.
inline constexpr double kQuestClip[9] = {0,
                                         0.7978845587140913,  // sqrt(2 / pi)
                                         1.4935346200015913,
                                         2.051068354131873,
                                         2.513930578568423,
                                         2.9160938834961225,
                                         3.276597282593217,
                                         3.6010497188221655,
                                         3.884938678807525};
// The same for the levels of E2M1: 6 units of 0.48707976.
inline constexpr double kQuestClipFp4 = 2.92247856;

inline constexpr float kQuestEpsilon = 1e-8f;  // added to the clip point: a row of zeros has a step

// The multiples of the clip point that the paper uses for one bit, where the grid has no inner step.
inline constexpr float kOneBitOuterScale = 1.30f;  // after a Hadamard rotation
inline constexpr float kOneBitOuterScaleUnrotated = 1.25f;

struct QuestRow {
  float clip;  // the largest level: alpha * rms + epsilon
  float step;  // INT: between neighbours, 2 clip / (2^b - 1). FP4: the unit of E2M1, clip / 6
};

TY_INLINE QuestRow MakeQuestRow(float rms, float alpha, float steps_per_clip) {
  const float clip = __builtin_fmaf(alpha, rms, kQuestEpsilon);
  return {clip, clip / steps_per_clip};
}

// The level above the value's cell counted from the middle, -2^(b-1) + 1 .. 2^(b-1), ties to even. A NaN gets the
// lowest.
TY_INLINE float QuestLevel(float v, float step, float lowest, float highest) {
  const float level = __builtin_rintf(v / step + 0.5f);
  const float above = level > lowest ? level : lowest;
  return above < highest ? above : highest;
}

TY_INLINE float QuestLevelValue(float level, float step) {
  return (level - 0.5f) * step;
}

// What a stored code stands for: code = level - 1 in two's complement.
TY_INLINE float QuestIntValue(int32_t code, float step) {
  return (static_cast<float>(code) + 0.5f) * step;
}

TY_INLINE float QuestFp4Value(uint8_t code, float step) {
  return E2M1Value(code) * step;
}

// For 2:4: the larger of two pairs of neighbours is the one with the larger sum of squares.
TY_INLINE float PairEnergy(float a, float b) {
  return __builtin_fmaf(a, a, b * b);
}
TY_INLINE uint32_t Beats(float a, float b) {
  return a > b ? 1 : 0;
}
// 0x01 in both bytes of a pair that fewer than two others beat.
TY_INLINE uint64_t KeepPair(uint32_t beaten_by, int pair) {
  return static_cast<uint64_t>(beaten_by < 2 ? 0x0101 : 0) << (16 * pair);
}

// Two of the four pairs of v[0..7]: byte i is 1 where v[i] is kept, else 0. Without branches: which pairs are large is
// a coin toss.
TY_INLINE uint64_t QuestKeptBytes(const float* v) {
  const float energy0 = PairEnergy(v[0], v[1]);
  const float energy1 = PairEnergy(v[2], v[3]);
  const float energy2 = PairEnergy(v[4], v[5]);
  const float energy3 = PairEnergy(v[6], v[7]);
  // Whether the later of two pairs beats the earlier; of equal ones it does not.
  const uint32_t b10 = Beats(energy1, energy0);
  const uint32_t b20 = Beats(energy2, energy0);
  const uint32_t b30 = Beats(energy3, energy0);
  const uint32_t b21 = Beats(energy2, energy1);
  const uint32_t b31 = Beats(energy3, energy1);
  const uint32_t b32 = Beats(energy3, energy2);
  return KeepPair(b10 + b20 + b30, 0) | KeepPair(1 - b10 + b21 + b31, 1) | KeepPair(2 - b20 - b21 + b32, 2) |
         KeepPair(3 - b30 - b31 - b32, 3);
}

}  // namespace trainyard::kernels
