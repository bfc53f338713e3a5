#include "kernels/core/cells.h"
#include "kernels/core/dispatch.h"
#include "kernels/core/vec.h"
#include "kernels/pointwise/rope_internal.h"
#include "kernels/quant/largest_magnitude_device.h"

namespace trainyard::kernels::internal {
namespace {

// A thread turns the same pairs of this many heads, so that it reads their angles once.
constexpr int kRopeHeads = 4;
constexpr int kThreads = 256;  // of ElementwiseGrid

struct RotationShape {
  int64_t tokens, seq;
  int64_t row_width;
  int turned_heads;  // q and k heads lie side by side
  int heads;         // these, or with an amax all, of which the others are only looked at
  int half;          // head_dim / 2
};

// direction: 1 forward, -1 backward. table: of the first position.
template <int kWidth, typename T>
__global__ void RotateKernel(T* qkv, const float* table, RotationShape shape, float direction, uint32_t* amax) {
  const int vectors = shape.half / kWidth;
  const int head_groups = (shape.heads + kRopeHeads - 1) / kRopeHeads;
  uint32_t largest = 0;
  for (Cells at(GlobalThread(), GlobalThreads(), int64_t{head_groups} * vectors); at.row < shape.tokens; at.Next()) {
    const int group = static_cast<int>(at.col) / vectors;
    const int first_pair = (static_cast<int>(at.col) - group * vectors) * kWidth;
    const auto position = static_cast<uint32_t>(at.row) % static_cast<uint32_t>(shape.seq);
    const Vec<float, 2 * kWidth> angles =
        LoadVec<2 * kWidth>(table + (int64_t{position} * shape.half + first_pair) * 2);
    T* const row = qkv + at.row * shape.row_width + first_pair;
    TY_UNROLL
    for (int h = 0; h < kRopeHeads; ++h) {
      const int head = group * kRopeHeads + h;
      if (head >= shape.heads) break;
      T* const first = row + int64_t{head} * 2 * shape.half;
      const Vec<T, kWidth> stored_a = LoadVec<kWidth>(first), stored_b = LoadVec<kWidth>(first + shape.half);
      if (head >= shape.turned_heads) {
        largest = LargerMagnitude(stored_b, LargerMagnitude(stored_a, largest));
        continue;
      }
      const Vec<float, kWidth> a = Widen(stored_a), b = Widen(stored_b);
      Vec<float, kWidth> turned_a, turned_b;
      TY_UNROLL
      for (int e = 0; e < kWidth; ++e) {
        const float cosine = angles[2 * e];
        const float sine = angles[2 * e + 1] * direction;
        turned_a[e] = a[e] * cosine - b[e] * sine;
        turned_b[e] = b[e] * cosine + a[e] * sine;
      }
      const Vec<T, kWidth> result_a = Narrow<T>(turned_a), result_b = Narrow<T>(turned_b);
      StoreVec(first, result_a);
      StoreVec(first + shape.half, result_b);
      largest = LargerMagnitude(result_b, LargerMagnitude(result_a, largest));
    }
  }
  RaiseAmax<kThreads>(largest, amax);
}

void Rotate(const RopeArgs& args, float direction, Stream& stream) {
  const int64_t width = (args.q_heads + 2 * args.kv_heads) * args.head_dim;
  const int64_t tokens = args.qkv.size() / width;
  uint32_t* const amax = StartAmax(args.amax, stream);
  if (tokens == 0) return;
  const int64_t turned = args.q_heads + args.kv_heads;
  const RotationShape shape = {.tokens = tokens,
                               .seq = tokens / args.batch,
                               .row_width = width,
                               .turned_heads = static_cast<int>(turned),
                               .heads = static_cast<int>(args.amax ? turned + args.kv_heads : turned),
                               .half = static_cast<int>(args.head_dim / 2)};
  const float* table = args.table.as<float>() + args.position_offset * args.head_dim;
  DispatchFloat(args.qkv.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    const bool vectors = shape.half % kVecWidth<T> == 0 && AllVecAligned(args.qkv.as<T>(), table);
    const int64_t items = (shape.heads + kRopeHeads - 1) / kRopeHeads * shape.half * tokens;
    Launch(stream, ElementwiseGrid(items, vectors ? kVecWidth<T> : 1),
           vectors ? RotateKernel<kVecWidth<T>, T> : RotateKernel<1, T>, args.qkv.as<T>(), table, shape, direction,
           amax);
  });
}

}  // namespace

void RopeForwardCuda(const RopeArgs& args, Stream& stream) {
  Rotate(args, 1.0f, stream);
}

void RopeBackwardCuda(const RopeArgs& args, Stream& stream) {
  Rotate(args, -1.0f, stream);
}

}  // namespace trainyard::kernels::internal
