#include "kernels/tangent/tangent_ops.h"

#include <type_traits>

#include "kernels/core/dispatch.h"
#include "kernels/tangent/tangent_ops_internal.h"

namespace trainyard::kernels {
namespace {

// f64 is for checks on the CPU.
template <typename T>
inline constexpr bool kHasTwin = std::is_same_v<T, float>;

template <typename T>
bool SameParts(const Dual<T>& a, const Dual<T>& b) {
  return a.tangents == b.tangents && a.rows == b.rows;
}

}  // namespace

template <typename T>
void EmbeddingTangent(const EmbeddingTangentArgs<T>& args, Stream& stream) {
  if constexpr (kHasTwin<T>) {
    TY_SELECT(stream, EmbeddingTangent)(args, stream);
  } else {
    TY_CHECK(stream.device() == Device::kCpu);
    internal::EmbeddingTangentOnHost(args);
  }
}

template <typename T>
void LinearTangent(const LinearTangentArgs<T>& args, Stream& stream) {
  TY_CHECK(SameParts(args.x, args.y));
  TY_CHECK(args.bias == nullptr || args.bias_dots != nullptr || args.y.tangents == 0);
  if constexpr (kHasTwin<T>) {
    TY_SELECT(stream, LinearTangent)(args, stream);
  } else {
    TY_CHECK(stream.device() == Device::kCpu);
    internal::LinearTangentOnHost(args);
  }
}

template <typename T>
void AddWeightTangent(const WeightTangentArgs<T>& args, Stream& stream) {
  TY_CHECK_EQ(args.x.rows, args.y.rows);
  TY_CHECK_LT(args.tangent, args.y.tangents);
  TY_CHECK_LE(args.row_begin + args.count, args.y.cols);
  if constexpr (kHasTwin<T>) {
    TY_SELECT(stream, AddWeightTangent)(args, stream);
  } else {
    TY_CHECK(stream.device() == Device::kCpu);
    internal::AddWeightTangentOnHost(args);
  }
}

template <typename T>
void RmsNormTangent(const RmsNormTangentArgs<T>& args, Stream& stream) {
  TY_CHECK(SameParts(args.x, args.y));
  TY_CHECK_EQ(args.x.cols, args.y.cols);
  if constexpr (kHasTwin<T>) {
    TY_SELECT(stream, RmsNormTangent)(args, stream);
  } else {
    TY_CHECK(stream.device() == Device::kCpu);
    internal::RmsNormTangentOnHost(args);
  }
}

template <typename T>
void SwigluTangent(const Dual<T>& gate_up, const Dual<T>& y, Stream& stream) {
  TY_CHECK(SameParts(gate_up, y));
  TY_CHECK_EQ(gate_up.cols, 2 * y.cols);
  if constexpr (kHasTwin<T>) {
    TY_SELECT(stream, SwigluTangent)(gate_up, y, stream);
  } else {
    TY_CHECK(stream.device() == Device::kCpu);
    internal::SwigluTangentOnHost(gate_up, y);
  }
}

template <typename T>
void AddDual(const Dual<T>& x, const Dual<T>& y, Stream& stream) {
  TY_CHECK_EQ(x.size(), y.size());
  if constexpr (kHasTwin<T>) {
    TY_SELECT(stream, AddDual)(x, y, stream);
  } else {
    TY_CHECK(stream.device() == Device::kCpu);
    internal::AddDualOnHost(x, y);
  }
}

template <typename T>
void RopeTangent(const RopeTangentArgs<T>& args, Stream& stream) {
  TY_CHECK_EQ(args.head_dim % 2, 0);
  TY_CHECK_EQ(args.qkv.cols % args.head_dim, 0);
  const int64_t kv_heads = args.qkv.cols / args.head_dim - args.turned_heads;
  TY_CHECK_GE(kv_heads, 1);
  TY_CHECK_GT(args.turned_heads, kv_heads);
  if constexpr (kHasTwin<T>) {
    TY_SELECT(stream, RopeTangent)(args, stream);
  } else {
    TY_CHECK(stream.device() == Device::kCpu);
    internal::RopeTangentOnHost(args);
  }
}

template <typename T>
void AttentionTangent(const AttentionTangentArgs<T>& args, Stream& stream) {
  TY_CHECK(SameParts(args.qkv, args.o));
  TY_CHECK_EQ(args.qkv.cols, (args.q_heads + 2 * args.kv_heads) * args.head_dim);
  TY_CHECK_EQ(args.o.cols, args.q_heads * args.head_dim);
  TY_CHECK(args.kv_of_head != nullptr || args.q_heads % args.kv_heads == 0);
  if constexpr (kHasTwin<T>) {
    TY_SELECT(stream, AttentionTangent)(args, stream);
  } else {
    TY_CHECK(stream.device() == Device::kCpu);
    internal::AttentionTangentOnHost(args);
  }
}

#define TY_INSTANTIATE(T)                                                     \
  template void EmbeddingTangent<T>(const EmbeddingTangentArgs<T>&, Stream&); \
  template void LinearTangent<T>(const LinearTangentArgs<T>&, Stream&);       \
  template void AddWeightTangent<T>(const WeightTangentArgs<T>&, Stream&);    \
  template void RmsNormTangent<T>(const RmsNormTangentArgs<T>&, Stream&);     \
  template void SwigluTangent<T>(const Dual<T>&, const Dual<T>&, Stream&);    \
  template void AddDual<T>(const Dual<T>&, const Dual<T>&, Stream&);          \
  template void RopeTangent<T>(const RopeTangentArgs<T>&, Stream&);           \
  template void AttentionTangent<T>(const AttentionTangentArgs<T>&, Stream&)
TY_INSTANTIATE(float);
TY_INSTANTIATE(double);
#undef TY_INSTANTIATE

}  // namespace trainyard::kernels
