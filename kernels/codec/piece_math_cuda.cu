#include "kernels/codec/piece_math_internal.h"
#include "kernels/core/dispatch.h"
#include "kernels/core/launch.h"

namespace trainyard::kernels::internal {
namespace {

template <typename T>
struct alignas(4 * sizeof(T)) Four {
  T value[4];
};
template <typename T>
bool IsAligned(const T* data) {
  return reinterpret_cast<uintptr_t>(data) % sizeof(Four<T>) == 0;  // null is
}

// y[i] = op(a[i], b[i], c[i]); b and c may be null: zeros. Four elements a thread where all vectors are aligned.
template <typename A, typename Y, typename Op>
__global__ void MapKernel(const A* a, const float* b, const float* c, int64_t count, bool is_aligned, Op op, Y* y) {
  const int64_t whole = is_aligned ? count / 4 : 0;
  for (int64_t i = GlobalThread(); i < whole; i += GlobalThreads()) {
    const Four<A> in_a = reinterpret_cast<const Four<A>*>(a)[i];
    Four<float> in_b = {}, in_c = {};
    if (b != nullptr) in_b = reinterpret_cast<const Four<float>*>(b)[i];
    if (c != nullptr) in_c = reinterpret_cast<const Four<float>*>(c)[i];
    Four<Y> out;
    for (int j = 0; j < 4; ++j) {
      out.value[j] = FromFloat<Y>(op(ToFloat(in_a.value[j]), in_b.value[j], in_c.value[j]));
    }
    reinterpret_cast<Four<Y>*>(y)[i] = out;
  }
  for (int64_t i = 4 * whole + GlobalThread(); i < count; i += GlobalThreads()) {
    y[i] = FromFloat<Y>(op(ToFloat(a[i]), b != nullptr ? b[i] : 0.0f, c != nullptr ? c[i] : 0.0f));
  }
}

template <typename A, typename Y, typename Op>
void Map(const A* a, const float* b, const float* c, int64_t count, const Op& op, Y* y, Stream& stream) {
  if (count == 0) return;
  const bool is_aligned = IsAligned(a) && IsAligned(b) && IsAligned(c) && IsAligned(y);
  Launch(stream, ElementwiseGrid(count, 4), MapKernel<A, Y, Op>, a, b, c, count, is_aligned, op, y);
}

struct First {
  __device__ float operator()(float a, float, float) const { return a; }
};
struct Plus {
  __device__ float operator()(float a, float b, float) const { return a + b; }
};
struct Minus {
  __device__ float operator()(float a, float b, float) const { return a - b; }
};
struct Times {
  float factor;
  __device__ float operator()(float a, float, float) const { return a * factor; }
};
struct Lost {
  float divisor;
  __device__ float operator()(float value, float decoded, float kept) const {
    return LostOrKept(value, decoded, divisor, kept);
  }
};

template <typename T>
__global__ void SumPiecesKernel(const T* pieces, const T* own_piece, int own, int64_t ranks, int64_t count, float scale,
                                T* out) {
  for (int64_t i = GlobalThread(); i < count; i += GlobalThreads()) {
    float sum = 0;
    for (int64_t rank = 0; rank < ranks; ++rank) {
      const float piece = ToFloat(rank == own ? own_piece[i] : pieces[(rank < own ? rank : rank - 1) * count + i]);
      sum = rank == 0 ? piece : sum + piece;
    }
    out[i] = FromFloat<T>(sum * scale);
  }
}

struct alignas(16) Line {
  uint32_t word[4];
};

// `lines` whole lines, then bytes.
__global__ void CopyBytesKernel(const uint8_t* from, int64_t lines, int64_t count, uint8_t* to) {
  for (int64_t i = GlobalThread(); i < lines; i += GlobalThreads()) {
    reinterpret_cast<Line*>(to)[i] = reinterpret_cast<const Line*>(from)[i];
  }
  for (int64_t i = static_cast<int64_t>(sizeof(Line)) * lines + GlobalThread(); i < count; i += GlobalThreads()) {
    to[i] = from[i];
  }
}

__global__ void ZeroBytesKernel(uint8_t* bytes, int64_t count) {
  for (int64_t i = GlobalThread(); i < count; i += GlobalThreads()) bytes[i] = 0;
}

}  // namespace

void WidenAddCuda(const WidenAddArgs& args, Stream& stream) {
  const float* const addend = args.addend ? args.addend.as<float>() : nullptr;
  DispatchFloat(args.x.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    if (addend == nullptr) {
      Map(args.x.as<T>(), nullptr, nullptr, args.y.size(), First(), args.y.as<float>(), stream);
    } else {
      Map(args.x.as<T>(), addend, nullptr, args.y.size(), Plus(), args.y.as<float>(), stream);
    }
  });
}

void RoundSumCuda(const RoundSumArgs& args, Stream& stream) {
  DispatchFloat(args.y.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    Map(args.x.as<float>(), nullptr, nullptr, args.y.size(), First(), args.y.as<T>(), stream);
  });
}

void DifferenceCuda(const DifferenceArgs& args, Stream& stream) {
  Map(args.a.as<float>(), args.b.as<float>(), nullptr, args.y.size(), Minus(), args.y.as<float>(), stream);
}

void ScaleInPlaceCuda(const ScaleInPlaceArgs& args, Stream& stream) {
  float* const x = args.x.as<float>();
  Map(x, nullptr, nullptr, args.x.size(), Times{args.factor}, x, stream);
}

void KeepLostCuda(const KeepLostArgs& args, Stream& stream) {
  float* const kept = args.kept.as<float>();
  Map(args.value.as<float>(), args.decoded.as<float>(), kept, args.kept.size(), Lost{args.divisor}, kept, stream);
}

void SumPiecesCuda(const SumPiecesArgs& args, Stream& stream) {
  if (args.out.size() == 0) return;
  DispatchFloat(args.out.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    Launch(stream, ElementwiseGrid(args.out.size()), SumPiecesKernel<T>, args.pieces.as<T>(), args.own_piece.as<T>(),
           args.own, args.pieces.dim(0) + 1, args.out.size(), args.scale, args.out.as<T>());
  });
}

void CopyBytesCuda(const CopyBytesArgs& args, Stream& stream) {
  const uint8_t* const from = args.from.as<uint8_t>();
  uint8_t* const to = args.to.as<uint8_t>();
  const int64_t count = args.to.size();
  if (count == 0) return;
  constexpr int64_t kLine = sizeof(Line);
  const bool is_aligned = (reinterpret_cast<uintptr_t>(from) | reinterpret_cast<uintptr_t>(to)) % kLine == 0;
  Launch(stream, ElementwiseGrid(is_aligned ? count / kLine + kLine : count), CopyBytesKernel, from,
         is_aligned ? count / kLine : 0, count, to);
}

void ZeroBytesCuda(const TensorView& bytes, Stream& stream) {
  if (bytes.size() == 0) return;
  Launch(stream, ElementwiseGrid(bytes.size()), ZeroBytesKernel, bytes.as<uint8_t>(), bytes.size());
}

}  // namespace trainyard::kernels::internal
