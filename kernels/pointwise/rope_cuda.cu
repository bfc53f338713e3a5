#include "kernels/core/cells.h"
#include "kernels/core/dispatch.h"
#include "kernels/core/vec.h"
#include "kernels/pointwise/rope_internal.h"

namespace trainyard::kernels::internal {
namespace {

// A thread turns the same pairs of this many heads, so that it reads their angles once.
constexpr int kRopeHeads = 4;

struct RotationShape {
  int64_t tokens, seq;
  int64_t row_width;
  int turned_heads;  // q and k heads lie side by side
  int half;          // head_dim / 2
};

// direction: 1 forward, -1 backward. table: of the first position.
template <int kWidth, typename T>
__global__ void RotateKernel(T* qkv, const float* table, RotationShape shape, float direction) {
  const int vectors = shape.half / kWidth;
  const int head_groups = (shape.turned_heads + kRopeHeads - 1) / kRopeHeads;
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
      if (head >= shape.turned_heads) break;
      T* const first = row + int64_t{head} * 2 * shape.half;
      const Vec<float, kWidth> a = Widen(LoadVec<kWidth>(first));
      const Vec<float, kWidth> b = Widen(LoadVec<kWidth>(first + shape.half));
      Vec<float, kWidth> turned_a, turned_b;
      TY_UNROLL
      for (int e = 0; e < kWidth; ++e) {
        const float cosine = angles[2 * e];
        const float sine = angles[2 * e + 1] * direction;
        turned_a[e] = a[e] * cosine - b[e] * sine;
        turned_b[e] = b[e] * cosine + a[e] * sine;
      }
      StoreVec(first, Narrow<T>(turned_a));
      StoreVec(first + shape.half, Narrow<T>(turned_b));
    }
  }
}

void Rotate(const RopeArgs& args, float direction, Stream& stream) {
  const int64_t width = (args.q_heads + 2 * args.kv_heads) * args.head_dim;
  const int64_t tokens = args.qkv.size() / width;
  if (tokens == 0) return;
  const RotationShape shape = {tokens, tokens / args.batch, width, static_cast<int>(args.q_heads + args.kv_heads),
                               static_cast<int>(args.head_dim / 2)};
  const float* table = args.table.as<float>() + args.position_offset * args.head_dim;
  DispatchFloat(args.qkv.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    const bool vectors = shape.half % kVecWidth<T> == 0 && AllVecAligned(args.qkv.as<T>(), table);
    const int64_t items = (shape.turned_heads + kRopeHeads - 1) / kRopeHeads * shape.half * tokens;
    Launch(stream, ElementwiseGrid(items, vectors ? kVecWidth<T> : 1),
           vectors ? RotateKernel<kVecWidth<T>, T> : RotateKernel<1, T>, args.qkv.as<T>(), table, shape, direction);
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
