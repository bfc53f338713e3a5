#include <cmath>

#include "kernels/core/block_reduce.h"
#include "kernels/core/vec.h"
#include "kernels/transform/axis_norms.h"

namespace trainyard::kernels::internal {
namespace {

template <NormOrder kOrder>
__device__ inline float Power(float x) {
  return kOrder == NormOrder::kL1 ? fabsf(x) : x * x;
}

template <NormOrder kOrder>
__device__ inline float Norm(double sum) {
  return static_cast<float>(kOrder == NormOrder::kL1 ? sum : sqrt(sum));
}

constexpr int kRowThreads = 256;
constexpr int64_t kBlockCols = 512;  // summed in f32 by a warp's lanes, the blocks in f64

// A warp a row.
template <NormOrder kOrder>
__global__ void RowNormsKernel(const float* x, int64_t rows, int64_t cols, bool is_aligned, float* norms) {
  constexpr int64_t kWarps = kRowThreads / 32;
  constexpr int kValues = kVecWidth<float>;
  const int64_t lane = threadIdx.x % 32;
  for (int64_t r = blockIdx.x * kWarps + threadIdx.x / 32; r < rows; r += gridDim.x * kWarps) {
    const float* row = x + r * cols;
    double total = 0;
    for (int64_t first = 0; first < cols; first += kBlockCols) {
      float sum = 0;
      for (int64_t c = first + lane * kValues; c < first + kBlockCols && c < cols; c += 32 * kValues) {
        if (is_aligned) {  // then a row is whole vectors
          const Vec<float, kValues> values = LoadVec<kValues>(row + c);
          TY_UNROLL
          for (int i = 0; i < kValues; ++i) sum += Power<kOrder>(values[i]);
        } else {
          for (int64_t i = c; i < c + kValues && i < cols; ++i) sum += Power<kOrder>(row[i]);
        }
      }
      total += static_cast<double>(sum);
    }
    total = WarpReduce(total, Sum());
    if (lane == 0) norms[r] = Norm<kOrder>(total);
  }
}

constexpr int kStrip = 16;        // columns of a block: two sectors of memory
constexpr int kRowLanes = 32;     // threads that share a column; each takes every 32nd row
constexpr int64_t kRunRows = 32;  // of a thread, summed in f32, the runs in f64

template <NormOrder kOrder>
__global__ void ColumnNormsKernel(const float* x, int64_t rows, int64_t cols, float* norms) {
  __shared__ double partials[kRowLanes][kStrip + 1];
  const int column = threadIdx.x % kStrip;
  const int row_lane = threadIdx.x / kStrip;
  for (int64_t first = int64_t{blockIdx.x} * kStrip; first < cols; first += int64_t{gridDim.x} * kStrip) {
    const int64_t c = first + column;
    double total = 0;
    for (int64_t run = row_lane; run < rows && c < cols; run += kRunRows * kRowLanes) {
      float sum = 0;
      for (int64_t r = run; r < run + kRunRows * kRowLanes && r < rows; r += kRowLanes) {
        sum += Power<kOrder>(x[r * cols + c]);
      }
      total += static_cast<double>(sum);
    }
    __syncthreads();  // the last strip's sums have been read
    partials[row_lane][column] = total;
    __syncthreads();
    if (row_lane == 0 && c < cols) {
      for (int i = 1; i < kRowLanes; ++i) total += partials[i][column];
      norms[c] = Norm<kOrder>(total);
    }
  }
}

template <NormOrder kOrder>
void LaunchNorms(const AxisNormsArgs& args, Stream& stream) {
  const int64_t rows = args.x.dim(0);
  const int64_t cols = args.x.dim(1);
  const float* x = args.x.as<float>();
  float* norms = args.norms.as<float>();
  if (args.axis == 0) {
    const bool is_aligned = AllVecAligned(x) && cols % kVecWidth<float> == 0;
    constexpr int64_t kWarps = kRowThreads / 32;
    Launch(stream, RowGrid((rows + kWarps - 1) / kWarps, kRowThreads), RowNormsKernel<kOrder>, x, rows, cols,
           is_aligned, norms);
  } else {
    Launch(stream, RowGrid((cols + kStrip - 1) / kStrip, kStrip * kRowLanes), ColumnNormsKernel<kOrder>, x, rows, cols,
           norms);
  }
}

}  // namespace

void AxisNormsCuda(const AxisNormsArgs& args, Stream& stream) {
  if (args.norms.size() == 0) return;
  if (args.order == NormOrder::kL1) {
    LaunchNorms<NormOrder::kL1>(args, stream);
  } else {
    LaunchNorms<NormOrder::kL2>(args, stream);
  }
}

}  // namespace trainyard::kernels::internal
