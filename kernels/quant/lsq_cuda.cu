#include "kernels/quant/lsq_formula.h"
#include "kernels/quant/lsq_internal.h"
#include "kernels/quant/warp_row.h"

namespace trainyard::kernels::internal {
namespace {

static_assert(kLsqPartials == kTileColumns);  // a lane has eight partial sums of a row

// What is summed: magnitudes, or, with `gradient`, gradients of the step.
struct Terms {
  Floats gradient;
  Floats step;
  float half_levels = 0;
};

__device__ inline float UsedStep(const Floats& step) {
  float value;
  Load<1>(step, 0, 1, &value);
  return LsqUsedStep(value);
}

// A warp a row.
template <int kParts>
__global__ void RowSumsKernel(RotatedRows rows, int64_t row_count, Terms terms, double* row_sums) {
  const bool is_gradient = terms.gradient.data != nullptr;
  const float step = is_gradient ? UsedStep(terms.step) : 1.0f;
  for (int64_t r = FirstWarpRow(); r < row_count; r += WarpRowStride()) {
    float sums[kLaneColumns] = {};
    for (int64_t first = 0; first < rows.cols; first += kParts * kTileColumns) {
      float v[kParts][kLaneColumns];
      LoadRotatedTile<kParts>(rows, r, first, v);
      TY_UNROLL
      for (int part = 0; part < kParts; ++part) {
        const int64_t column = first + part * kTileColumns + Lane() * kLaneColumns;
        float gradient[kLaneColumns] = {};
        if (is_gradient) {
          Load<kLaneColumns>(terms.gradient, r * rows.cols + column, rows.cols - column, gradient);
        }
        TY_UNROLL
        for (int i = 0; i < kLaneColumns; ++i) {
          if (column + i >= rows.cols) continue;
          sums[i] = is_gradient ? LsqAddStepGradient(v[part][i], gradient[i], step, terms.half_levels, sums[i])
                                : LsqAddMagnitude(v[part][i], sums[i]);
        }
      }
    }
    double totals[kLaneColumns];
    TY_UNROLL
    for (int i = 0; i < kLaneColumns; ++i) totals[i] = static_cast<double>(sums[i]);
    TY_UNROLL
    for (int i = 0; i < kLaneColumns; i += 2) totals[i] += totals[i + 1];
    TY_UNROLL
    for (int i = 0; i < kLaneColumns; i += 4) totals[i] += totals[i + 2];
    double total = totals[0] + totals[4];
    for (int distance = 1; distance < 32; distance *= 2) total += __shfl_xor_sync(0xFFFFFFFFu, total, distance);
    if (Lane() == 0) row_sums[r] = total;
  }
}

// Of all rows, for every thread of the one block.
__device__ double TotalOfRows(const double* row_sums, int64_t rows) {
  __shared__ double totals[kLsqPartials];
  const int self = static_cast<int>(threadIdx.x);
  double total = 0;
  for (int64_t r = self; r < rows; r += kLsqPartials) total += row_sums[r];
  totals[self] = total;
  for (int distance = 1; distance < kLsqPartials; distance *= 2) {
    __syncthreads();
    if (self % (2 * distance) == 0) totals[self] += totals[self + distance];
  }
  __syncthreads();
  return totals[0];
}

__global__ void FirstStepKernel(const double* row_sums, int64_t rows, int64_t size, double root, Floats step) {
  const float value = LsqFirstStepOf(TotalOfRows(row_sums, rows), size, root);
  if (threadIdx.x == 0) Store<1>(&value, step, 0, 1);
}

__global__ void StepGradientKernel(const double* row_sums, int64_t rows, float scale, float* step_gradient) {
  const double total = TotalOfRows(row_sums, rows);
  if (threadIdx.x == 0) *step_gradient += static_cast<float>(static_cast<double>(scale) * total);
}

__global__ void RowStepsKernel(Floats step, float* steps, int64_t count) {
  const float value = UsedStep(step);
  for (int64_t i = GlobalThread(); i < count; i += GlobalThreads()) steps[i] = value;
}

void SumRows(const TensorView& x, int64_t rotate_group, const Terms& terms, double* row_sums, Stream& stream) {
  const int64_t rows = x.dim(0);
  if (rows == 0) return;
  const int parts = TileParts(rotate_group);
  const auto kernel = parts == 1 ? RowSumsKernel<1> : parts == 2 ? RowSumsKernel<2> : RowSumsKernel<4>;
  Launch(stream, WarpRowGrid(rows), kernel, RotatedRows(x, rotate_group), rows, terms, row_sums);
}

constexpr Grid kOneBlock = {.threads = kLsqPartials};

}  // namespace

void LsqFirstStepCuda(const LsqFirstStepArgs& args, Stream& stream) {
  auto* const row_sums = static_cast<double*>(args.workspace.data());
  SumRows(args.x, args.rotate_group, {}, row_sums, stream);
  Launch(stream, kOneBlock, FirstStepKernel, row_sums, args.x.dim(0), args.x.size(),
         std::sqrt(static_cast<double>(LsqHalfLevels(args.bits))), Floats(args.step));
}

void LsqRowStepsCuda(const LsqRowStepsArgs& args, Stream& stream) {
  const int64_t count = args.steps.size();
  if (count == 0) return;
  Launch(stream, ElementwiseGrid(count), RowStepsKernel, Floats(args.step), args.steps.as<float>(), count);
}

void LsqStepGradientCuda(const LsqStepGradientArgs& args, Stream& stream) {
  auto* const row_sums = static_cast<double*>(args.workspace.data());
  const Terms terms = {.gradient = args.gradient, .step = args.step, .half_levels = LsqHalfLevels(args.bits)};
  SumRows(args.x, args.rotate_group, terms, row_sums, stream);
  Launch(stream, kOneBlock, StepGradientKernel, row_sums, args.x.dim(0), args.scale, args.step_gradient.as<float>());
}

}  // namespace trainyard::kernels::internal
