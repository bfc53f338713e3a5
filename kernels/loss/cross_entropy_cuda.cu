// One block a row and one launch: the first pass over the row keeps as much of it as fits in shared memory, so that the
// second, which writes the gradient, reads the rest only, from the L2 cache as a rule.
#include <algorithm>
#include <cmath>

#include "kernels/core/dispatch.h"
#include "kernels/core/kernel_check.h"
#include "kernels/loss/cross_entropy_internal.h"
#include "kernels/loss/online_softmax.h"

namespace trainyard::kernels::internal {
namespace {

// A row begins anywhere: single elements up to the first whole vector, vectors, single elements. There are less than
// two vectors of single ones, so each has a thread of its own.
template <typename T>
struct RowParts {
  static constexpr int kWidth = kVecWidth<T>;
  int size, head, vectors, singles;

  __device__ RowParts(const T* row, int64_t row_size) : size(static_cast<int>(row_size)) {
    const auto misaligned = static_cast<int>(reinterpret_cast<uintptr_t>(row) % kVecBytes / sizeof(T));
    head = misaligned == 0 ? 0 : kWidth - misaligned;
    head = head < size ? head : size;
    vectors = (size - head) / kWidth;
    singles = size - vectors * kWidth;
  }
  __device__ int IndexOfSingle(int single) const { return single < head ? single : size - singles + single; }
};

constexpr int kLoadsAhead = 4;  // vectors that a thread asks for before it uses one

template <typename T>
struct Arguments {
  T* logits;
  const int32_t* targets;
  const float* weights;  // or null
  float* losses;
  int64_t rows, vocab_size;
  float grad_scale;
  int cached_vectors;  // of a row, in shared memory
};

struct RowGradient {
  __device__ RowGradient(float row_max, float row_scale, double row_sum)
      : max(row_max), scale(row_scale), sum(row_sum), factor(static_cast<float>(double{row_scale} / row_sum)) {}
  __device__ float At(float logit) const { return QuickExp(logit - max) * factor; }
  // From the probability, not from what was stored, so that bf16 rounds p - 1 once.
  __device__ float AtTarget(float logit) const {
    return (static_cast<float>(double{QuickExp(logit - max)} / sum) - 1.0f) * scale;
  }
  float max, scale;
  double sum;
  float factor;
};

template <bool kBackward, int kThreads, typename T>
__global__ void __launch_bounds__(kThreads) CrossEntropyKernel(Arguments<T> args) {
  constexpr int kWidth = kVecWidth<T>;
  using V = Vec<T, kWidth>;
  static_assert(kThreads >= 2 * kWidth);
  V* const cache = SharedMemory<V>();  // a thread reads what it wrote itself
  const int self = static_cast<int>(threadIdx.x);

  for (int64_t row = blockIdx.x; row < args.rows; row += gridDim.x) {
    T* const x = args.logits + row * args.vocab_size;
    const RowParts<T> parts(x, args.vocab_size);
    T* const whole = x + parts.head;
    const int single = self < parts.singles ? parts.IndexOfSingle(self) : -1;
    const int32_t target = args.targets[row];
    if (target == kIgnoreTarget) {
      if (self == 0) args.losses[row] = 0.0f;
      if constexpr (kBackward) {
        for (int v = self; v < parts.vectors; v += kThreads) StoreVec(whole + int64_t{v} * kWidth, V{});
        if (single >= 0) x[single] = T{};
      }
      continue;
    }
    CheckIndex(target, args.vocab_size);
    const float target_logit = ToFloat(x[target]);

    OnlineSoftmax softmax;
    if (single >= 0) softmax.Add(ToFloat(x[single]));
    for (int first = self; first < parts.vectors; first += kThreads * kLoadsAhead) {
      V loaded[kLoadsAhead] = {};
      TY_UNROLL
      for (int u = 0; u < kLoadsAhead; ++u) {
        const int v = first + u * kThreads;
        if (v < parts.vectors) loaded[u] = LoadVec<kWidth>(whole + int64_t{v} * kWidth);
      }
      TY_UNROLL
      for (int u = 0; u < kLoadsAhead; ++u) {
        const int v = first + u * kThreads;
        if (v >= parts.vectors) break;
        softmax.Add(Widen(loaded[u]));
        if (kBackward && v < args.cached_vectors) cache[v] = loaded[u];
      }
    }
    const RowSoftmax all = Combine<kThreads>(softmax);
    const float weight = args.weights == nullptr ? 1.0f : args.weights[row];
    if (self == 0) {
      args.losses[row] =
          static_cast<float>(log(all.sum) + (static_cast<double>(all.max) - double{target_logit})) * weight;
    }
    if constexpr (kBackward) {
      const RowGradient gradient = {all.max, args.grad_scale * weight, all.sum};
      TY_UNROLL_BY(4)
      for (int v = self; v < parts.vectors; v += kThreads) {
        Vec<float, kWidth> values =
            Widen(v < args.cached_vectors ? cache[v] : LoadVec<kWidth>(whole + int64_t{v} * kWidth));
        TY_UNROLL
        for (int e = 0; e < kWidth; ++e) values[e] = gradient.At(values[e]);
        StoreVec(whole + int64_t{v} * kWidth, Narrow<T>(values));
      }
      if (single >= 0) x[single] = FromFloat<T>(gradient.At(ToFloat(x[single])));
      __syncthreads();
      if (self == 0) x[target] = FromFloat<T>(gradient.AtTarget(target_logit));
    }
  }
}

template <bool kBackward>
void Run(const CrossEntropyArgs& args, Stream& stream) {
  const int64_t rows = args.logits.dim(0);
  const int64_t vocab_size = args.logits.dim(1);
  if (rows == 0) return;
  DispatchFloat(args.logits.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    Arguments<T> arguments = {.logits = args.logits.as<T>(),
                              .targets = args.targets.as<int32_t>(),
                              .weights = args.weights ? args.weights.as<float>() : nullptr,
                              .losses = args.losses.as<float>(),
                              .rows = rows,
                              .vocab_size = vocab_size,
                              .grad_scale = args.grad_scale,
                              .cached_vectors = 0};
    const auto launch = [&](auto kernel, int threads) {
      Grid grid = RowGrid(rows, threads);
      if (kBackward) {
        const int64_t vectors = std::min(vocab_size * int64_t{sizeof(T)}, MaxSharedBytes()) / kVecBytes;
        arguments.cached_vectors = static_cast<int>(vectors);
        grid.shared_bytes = vectors * kVecBytes;
      }
      Launch(stream, grid, kernel, arguments);
    };
    // Long rows fill a multiprocessor's shared memory, so that no second block would fit.
    constexpr int64_t kLongRow = 16384;
    if (vocab_size >= kLongRow) {
      launch(CrossEntropyKernel<kBackward, 1024, T>, 1024);
    } else {
      launch(CrossEntropyKernel<kBackward, 256, T>, 256);
    }
  });
}

}  // namespace

void CrossEntropyForwardCuda(const CrossEntropyArgs& args, Stream& stream) {
  Run<false>(args, stream);
}

void CrossEntropyForwardBackwardCuda(const CrossEntropyArgs& args, Stream& stream) {
  Run<true>(args, stream);
}

}  // namespace trainyard::kernels::internal
