#include <algorithm>
#include <cmath>

#include "absl/functional/function_ref.h"
#include "kernels/core/simd.h"
#include "kernels/quant/float_block.h"
#include "kernels/quant/lsq_internal.h"
#include "kernels/quant/quest_formula.h"
#include "kernels/transform/hadamard_internal.h"

namespace trainyard::kernels::internal {
namespace {

TY_SIMD void AddMagnitudes(const float* v, int64_t count, float* sums) {
  const int64_t whole = count / kLanes * kLanes;
  for (int64_t i = 0; i < whole; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) sums[lane] += __builtin_fabsf(v[i + lane]);
  }
  for (int64_t i = whole; i < count; ++i) sums[i - whole] += __builtin_fabsf(v[i]);
}

// What the value moves by when the step grows by one.
TY_INLINE float StepDerivative(float v, float step, float half_levels) {
  const float level = QuestLevel(v, step, 0.5f - half_levels, 0.5f + half_levels);
  const float inside = (level - 0.5f) - v / step;
  const float outside = v > 0 ? half_levels : -half_levels;
  return __builtin_fabsf(v) <= half_levels * step ? inside : outside;
}
TY_SIMD void AddStepGradients(const float* v, const float* gradient, int64_t count, float step, float half_levels,
                              float* sums) {
  const int64_t whole = count / kLanes * kLanes;
  for (int64_t i = 0; i < whole; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      sums[lane] += gradient[i + lane] * StepDerivative(v[i + lane], step, half_levels);
    }
  }
  for (int64_t i = whole; i < count; ++i) sums[i - whole] += gradient[i] * StepDerivative(v[i], step, half_levels);
}

float StepOf(const TensorView& step) {
  float buffer;
  return std::max(*LoadFloats(step, 0, 1, &buffer), kQuestEpsilon);
}

float HalfLevels(int bits) {
  return static_cast<float>((1 << bits) - 1) * 0.5f;
}

// The sum over all rows of what `add(first element, count, v, lanes)` adds up for each block of a row of v = x H.
double SumOfRows(const TensorView& x, int64_t rotate_group, const TensorView& workspace, Stream& stream,
                 absl::FunctionRef<void(int64_t at, int64_t count, const float* v, float* sums)> add) {
  const int64_t rows = x.dim(0);
  const int64_t cols = x.dim(1);
  auto* const row_sums = static_cast<double*>(workspace.data());
  stream.pool().ParallelFor(rows, std::max<int64_t>(1, 8 * kFloatBlock / cols), [&](int64_t begin, int64_t end) {
    float buffer[kFloatBlock];
    for (int64_t row = begin; row < end; ++row) {
      float sums[kLanes] = {};
      for (int64_t first = 0; first < cols; first += kFloatBlock) {
        const int64_t count = std::min(kFloatBlock, cols - first);
        const int64_t at = row * cols + first;
        const float* v = LoadFloats(x, at, count, buffer);
        if (rotate_group != 0) {
          RotateFloats(v, count, rotate_group, buffer);
          v = buffer;
        }
        add(at, count, v, sums);
      }
      row_sums[row] = 0;
      for (const float sum : sums) row_sums[row] += static_cast<double>(sum);
    }
  });
  double total = 0;
  for (int64_t row = 0; row < rows; ++row) total += row_sums[row];
  return total;
}

}  // namespace

void LsqFirstStepCpu(const LsqFirstStepArgs& args, Stream& stream) {
  const double sum =
      SumOfRows(args.x, args.rotate_group, args.workspace, stream,
                [](int64_t /*at*/, int64_t count, const float* v, float* sums) { AddMagnitudes(v, count, sums); });
  const double mean = sum / static_cast<double>(args.x.size());
  float buffer;
  float* const step = FloatsOf(args.step, 0, &buffer);
  *step = std::max(static_cast<float>(2 * mean / std::sqrt(static_cast<double>(HalfLevels(args.bits)))), kQuestEpsilon);
  StoreFloats(step, args.step, 0, 1);
}

void LsqRowStepsCpu(const LsqRowStepsArgs& args, Stream& /*stream*/) {
  float* const steps = args.steps.as<float>();
  std::fill(steps, steps + args.steps.size(), StepOf(args.step));
}

void LsqStepGradientCpu(const LsqStepGradientArgs& args, Stream& stream) {
  const float step = StepOf(args.step);
  const float half_levels = HalfLevels(args.bits);
  const double sum = SumOfRows(args.x, args.rotate_group, args.workspace, stream,
                               [&](int64_t at, int64_t count, const float* v, float* sums) {
                                 float buffer[kFloatBlock];
                                 const float* const gradient = LoadFloats(args.gradient, at, count, buffer);
                                 AddStepGradients(v, gradient, count, step, half_levels, sums);
                               });
  *args.step_gradient.as<float>() += static_cast<float>(static_cast<double>(args.scale) * sum);
}

}  // namespace trainyard::kernels::internal
