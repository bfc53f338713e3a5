#include <algorithm>
#include <cmath>

#include "absl/functional/function_ref.h"
#include "kernels/core/simd.h"
#include "kernels/quant/float_block.h"
#include "kernels/quant/lsq_formula.h"
#include "kernels/quant/lsq_internal.h"
#include "kernels/transform/hadamard_internal.h"

namespace trainyard::kernels::internal {
namespace {

static_assert(kFloatBlock % kLsqPartials == 0);

TY_SIMD void AddMagnitudes(const float* v, int64_t count, float* sums) {
  const int64_t whole = count / kLsqPartials * kLsqPartials;
  for (int64_t i = 0; i < whole; i += kLsqPartials) {
    for (int lane = 0; lane < kLsqPartials; ++lane) sums[lane] = LsqAddMagnitude(v[i + lane], sums[lane]);
  }
  for (int64_t i = whole; i < count; ++i) sums[i - whole] = LsqAddMagnitude(v[i], sums[i - whole]);
}

TY_SIMD void AddStepGradients(const float* v, const float* gradient, int64_t count, float step, float half_levels,
                              float* sums) {
  const int64_t whole = count / kLsqPartials * kLsqPartials;
  for (int64_t i = 0; i < whole; i += kLsqPartials) {
    for (int lane = 0; lane < kLsqPartials; ++lane) {
      sums[lane] = LsqAddStepGradient(v[i + lane], gradient[i + lane], step, half_levels, sums[lane]);
    }
  }
  for (int64_t i = whole; i < count; ++i) {
    sums[i - whole] = LsqAddStepGradient(v[i], gradient[i], step, half_levels, sums[i - whole]);
  }
}

double TotalByNeighbours(double* sums) {
  for (int distance = 1; distance < kLsqPartials; distance *= 2) {
    for (int i = 0; i < kLsqPartials; i += 2 * distance) sums[i] += sums[i + distance];
  }
  return sums[0];
}

float StepOf(const TensorView& step) {
  float buffer;
  return LsqUsedStep(*LoadFloats(step, 0, 1, &buffer));
}

// The sum over all rows of what `add(first element, count, v, partial sums)` adds up for each block of a row of v = x
// H.
double SumOfRows(const TensorView& x, int64_t rotate_group, const TensorView& workspace, Stream& stream,
                 absl::FunctionRef<void(int64_t at, int64_t count, const float* v, float* sums)> add) {
  const int64_t rows = x.dim(0);
  const int64_t cols = x.dim(1);
  auto* const row_sums = static_cast<double*>(workspace.data());
  const int64_t grain = std::max<int64_t>(1, 8 * kFloatBlock / std::max<int64_t>(1, cols));
  stream.pool().ParallelFor(rows, grain, [&](int64_t begin, int64_t end) {
    float buffer[kFloatBlock];
    double totals[kLsqPartials];
    for (int64_t row = begin; row < end; ++row) {
      float sums[kLsqPartials] = {};
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
      std::copy_n(sums, kLsqPartials, totals);
      row_sums[row] = TotalByNeighbours(totals);
    }
  });
  double totals[kLsqPartials] = {};
  for (int64_t row = 0; row < rows; ++row) totals[row % kLsqPartials] += row_sums[row];
  return TotalByNeighbours(totals);
}

}  // namespace

void LsqFirstStepCpu(const LsqFirstStepArgs& args, Stream& stream) {
  const double sum =
      SumOfRows(args.x, args.rotate_group, args.workspace, stream,
                [](int64_t /*at*/, int64_t count, const float* v, float* sums) { AddMagnitudes(v, count, sums); });
  float buffer;
  float* const step = FloatsOf(args.step, 0, &buffer);
  *step = LsqFirstStepOf(sum, args.x.size(), std::sqrt(static_cast<double>(LsqHalfLevels(args.bits))));
  StoreFloats(step, args.step, 0, 1);
}

void LsqRowStepsCpu(const LsqRowStepsArgs& args, Stream& /*stream*/) {
  float* const steps = args.steps.as<float>();
  std::fill(steps, steps + args.steps.size(), StepOf(args.step));
}

void LsqStepGradientCpu(const LsqStepGradientArgs& args, Stream& stream) {
  const float step = StepOf(args.step);
  const float half_levels = LsqHalfLevels(args.bits);
  const double sum = SumOfRows(args.x, args.rotate_group, args.workspace, stream,
                               [&](int64_t at, int64_t count, const float* v, float* sums) {
                                 float buffer[kFloatBlock];
                                 const float* const gradient = LoadFloats(args.gradient, at, count, buffer);
                                 AddStepGradients(v, gradient, count, step, half_levels, sums);
                               });
  *args.step_gradient.as<float>() += static_cast<float>(static_cast<double>(args.scale) * sum);
}

}  // namespace trainyard::kernels::internal
