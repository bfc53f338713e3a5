#include <algorithm>
#include <cmath>

#include "kernels/core/dtype.h"
#include "kernels/core/simd.h"
#include "kernels/optim/global_norm.h"

namespace trainyard::kernels {
namespace internal {
namespace {

constexpr int64_t kNormBlock = 1 << 15;  // elements a partial sum; cut from each tensor's own beginning
constexpr int kNormLanes = 2 * kLanes;   // loops of 16 are unrolled whole by GCC, which then vectorises them badly

int64_t BlocksOf(const TensorView& x) {
  return (x.size() + kNormBlock - 1) / kNormBlock;
}

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

double BlockSum(const TensorView& x, int64_t block) {
  const int64_t begin = block * kNormBlock;
  const int64_t count = std::min(kNormBlock, x.size() - begin);
  if (x.dtype() == DType::kF32) return SumOfSquares(x.as<float>() + begin, count);
  return SumOfSquares(x.as<BFloat16>() + begin, count);
}

int64_t TotalBlocks(absl::Span<const TensorView> tensors) {
  int64_t blocks = 0;
  for (const TensorView& x : tensors) blocks += BlocksOf(x);
  return blocks;
}

}  // namespace

void GlobalNormCpu(const GlobalNormArgs& args, Stream& stream) {
  double* partials = static_cast<double*>(args.workspace.data());
  const int64_t total = TotalBlocks(args.tensors);
  // Blocks of all tensors are numbered through, so that many small tensors cost one fork and join.
  stream.pool().ParallelFor(total, 1, [&](int64_t begin, int64_t end) {
    int64_t first = 0;  // number of the tensor's first block
    for (const TensorView& x : args.tensors) {
      const int64_t blocks = BlocksOf(x);
      for (int64_t i = std::max(begin, first); i < std::min(end, first + blocks); ++i) {
        partials[i] = BlockSum(x, i - first);
      }
      first += blocks;
    }
  });
  double sum = 0.0;
  for (int64_t i = 0; i < total; ++i) sum += partials[i];
  const double norm = std::sqrt(sum) * static_cast<double>(args.grad_scale);
  *args.norm.as<float>() = static_cast<float>(norm);
  if (args.clip_factor) {
    const double max_norm = static_cast<double>(args.max_norm);
    const bool clips = max_norm > 0.0 && std::isfinite(norm) && norm > max_norm;
    *args.clip_factor.as<float>() = clips ? static_cast<float>(max_norm / norm) : 1.0f;
  }
}

}  // namespace internal

int64_t GlobalNormWorkspaceBytes(absl::Span<const TensorView> tensors) {
  return internal::TotalBlocks(tensors) * static_cast<int64_t>(sizeof(double));
}

}  // namespace trainyard::kernels
