#include <algorithm>

#include "kernels/core/dtype.h"
#include "kernels/core/simd.h"
#include "kernels/optim/global_norm_internal.h"

namespace trainyard::kernels::internal {
namespace {

constexpr int kNormLanes = 2 * kLanes;  // loops of 16 are unrolled whole by GCC, which then vectorises them badly

// Squares of floats are exact in double, so this neither overflows nor loses small gradients beside large ones.
template <typename T>
TY_INLINE double SquaresOf(const T* x, int64_t n) {
  double lanes[kNormLanes] = {};
  const int64_t whole = n / kNormLanes * kNormLanes;
  for (int64_t i = 0; i < whole; i += kNormLanes) {
    for (int lane = 0; lane < kNormLanes; ++lane) {
      const double value = static_cast<double>(ToFloat(x[i + lane]));
      lanes[lane] += value * value;
    }
  }
  for (int64_t i = whole; i < n; ++i) {
    const double value = static_cast<double>(ToFloat(x[i]));
    lanes[i - whole] += value * value;
  }
  double sum = 0.0;
  for (int lane = 0; lane < kNormLanes; ++lane) sum += lanes[lane];
  return sum;
}

TY_SIMD double SumOfSquares(const float* x, int64_t n) {
  return SquaresOf(x, n);
}
TY_SIMD double SumOfSquares(const BFloat16* x, int64_t n) {
  return SquaresOf(x, n);
}

double BlockSum(const TensorView& x, int64_t block_elements, int64_t block) {
  const int64_t begin = block * block_elements;
  const int64_t count = std::min(block_elements, x.size() - begin);
  if (x.dtype() == DType::kF32) return SumOfSquares(x.as<float>() + begin, count);
  return SumOfSquares(x.as<BFloat16>() + begin, count);
}

}  // namespace

void GlobalNormCpu(const GlobalNormArgs& args, Stream& stream) {
  double* partials = static_cast<double*>(args.workspace.data());
  const int64_t total = NormBlocks(args.tensors);
  // Blocks of all tensors are numbered through, so that many small tensors cost one fork and join.
  stream.pool().ParallelFor(total, 1, [&](int64_t begin, int64_t end) {
    int64_t first = 0;  // number of the tensor's first block
    for (const TensorView& x : args.tensors) {
      const int64_t blocks = NormBlocksOf(x);
      for (int64_t i = std::max(begin, first); i < std::min(end, first + blocks); ++i) {
        partials[i] = BlockSum(x, kNormBlock, i - first);
      }
      first += blocks;
    }
  });
  double sum = 0.0;
  for (int64_t i = 0; i < total; ++i) sum += partials[i];
  float* const clip_factor = args.clip_factor ? args.clip_factor.as<float>() : nullptr;
  StoreNorm(sum, args.grad_scale, args.max_norm, args.norm.as<float>(), clip_factor);
}

void SquareSumsCpu(const SquareSumsArgs& args, Stream& stream) {
  double* const sums = static_cast<double*>(args.sums.data());
  const int64_t total = SquareSumsBytes(args.pieces) / static_cast<int64_t>(sizeof(double));
  stream.pool().ParallelFor(total, 1, [&](int64_t begin, int64_t end) {
    int64_t first = 0;  // number of the piece's first block
    for (const NormPiece& piece : args.pieces) {
      const int64_t blocks = BlocksOf(piece);
      for (int64_t i = std::max(begin, first); i < std::min(end, first + blocks); ++i) {
        sums[i] = BlockSum(piece.x, piece.block, i - first);
      }
      first += blocks;
    }
  });
}

}  // namespace trainyard::kernels::internal
