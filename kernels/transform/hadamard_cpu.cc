#include <algorithm>
#include <cmath>

#include "kernels/core/dispatch.h"
#include "kernels/transform/hadamard_internal.h"
#include "kernels/transform/vector8.h"

namespace trainyard::kernels::internal {
namespace {

// The butterflies of distance 1, 2 and 4, inside one vector: (a, b) becomes (a + b, a - b).
TY_INLINE Vector8 WithinVector(Vector8 v) {
  constexpr Vector8 kSign1 = {1, -1, 1, -1, 1, -1, 1, -1};
  constexpr Vector8 kSign2 = {1, 1, -1, -1, 1, 1, -1, -1};
  constexpr Vector8 kSign4 = {1, 1, 1, 1, -1, -1, -1, -1};
  v = __builtin_shufflevector(v, v, 1, 0, 3, 2, 5, 4, 7, 6) + v * kSign1;
  v = __builtin_shufflevector(v, v, 2, 3, 0, 1, 6, 7, 4, 5) + v * kSign2;
  return __builtin_shufflevector(v, v, 4, 5, 6, 7, 0, 1, 2, 3) + v * kSign4;
}

// v where the bit of its lane is set, else 0.
TY_INLINE Vector8 Masked(Vector8 v, uint8_t bits) {
  using Words = uint32_t __attribute__((vector_size(32)));
  constexpr Words kLaneBits = {1, 2, 4, 8, 16, 32, 64, 128};
  const Words is_kept = __builtin_bit_cast(Words, (kLaneBits & bits) != 0);
  return __builtin_bit_cast(Vector8, __builtin_bit_cast(Words, v) & is_kept);
}

// What is done to the elements of one group before and after the butterflies; null: nothing.
struct GroupOptions {
  const uint8_t* mask = nullptr;
  const float* before = nullptr;
  const float* after = nullptr;
};

// The butterflies up to half of 8 kVectors elements, in registers, from x to y.
template <int kVectors, typename X>
TY_INLINE void TransformBlock(const X* x, const uint8_t* mask, const float* signs, float* y) {
  Vector8 v[kVectors];
#pragma GCC unroll 8
  for (int i = 0; i < kVectors; ++i) {
    v[i] = Load8(x + kVectorLanes * i);
    if (mask != nullptr) v[i] = Masked(v[i], mask[i]);
    if (signs != nullptr) v[i] *= Load8(signs + kVectorLanes * i);
    v[i] = WithinVector(v[i]);
  }
#pragma GCC unroll 3
  for (int distance = 1; distance < kVectors; distance *= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < kVectors; ++i) {
      if ((i & distance) != 0) continue;
      const Vector8 a = v[i];
      const Vector8 b = v[i + distance];
      v[i] = a + b;
      v[i + distance] = a - b;
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kVectors; ++i) Store8(v[i], y + kVectorLanes * i);
}

constexpr int64_t kBlock = 64;

// The butterflies of one distance, a multiple of the vector length, over one group in place.
TY_INLINE void Combine(float* y, int64_t group, int64_t distance) {
  for (int64_t first = 0; first < group; first += 2 * distance) {
    for (int64_t i = first; i < first + distance; i += kVectorLanes) {
      const Vector8 a = Load8(y + i);
      const Vector8 b = Load8(y + i + distance);
      Store8(a + b, y + i);
      Store8(a - b, y + i + distance);
    }
  }
}

template <typename Y>
TY_INLINE void StoreScaled(Vector8 v, float scale, const float* signs, Y* y) {
  v *= scale;
  if (signs != nullptr) v *= Load8(signs);
  Store8(v, y);
}

// The last butterflies of a group beyond one block, or none; then scale and signs.
template <typename Y>
TY_INLINE void Finish(const float* x, int64_t group, float scale, const float* signs, Y* y) {
  if (group <= kBlock) {
    for (int64_t i = 0; i < group; i += kVectorLanes) {
      StoreScaled(Load8(x + i), scale, signs == nullptr ? nullptr : signs + i, y + i);
    }
    return;
  }
  const int64_t half = group / 2;
  for (int64_t i = 0; i < half; i += kVectorLanes) {
    const Vector8 a = Load8(x + i);
    const Vector8 b = Load8(x + i + half);
    StoreScaled(a + b, scale, signs == nullptr ? nullptr : signs + i, y + i);
    StoreScaled(a - b, scale, signs == nullptr ? nullptr : signs + i + half, y + i + half);
  }
}

template <typename X, typename Y>
TY_INLINE void TransformGroup(const X* x, const GroupOptions& options, int64_t group, float scale, Y* y) {
  alignas(64) float work[kMaxHadamardGroup];
  switch (group) {
    case 16:
      TransformBlock<2>(x, options.mask, options.before, work);
      break;
    case 32:
      TransformBlock<4>(x, options.mask, options.before, work);
      break;
    default:
      for (int64_t i = 0; i < group; i += kBlock) {
        TransformBlock<8>(x + i, options.mask == nullptr ? nullptr : options.mask + i / 8,
                          options.before == nullptr ? nullptr : options.before + i, work + i);
      }
      for (int64_t distance = kBlock; distance < group / 2; distance *= 2) Combine(work, group, distance);
  }
  Finish(work, group, scale, options.after, y);
}

// Groups first .. last - 1 of the whole tensor.
template <typename X, typename Y>
void TransformGroups(const HadamardArgs& args, int64_t first, int64_t last) {
  const int64_t group = args.group;
  const float scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(group)));
  const X* x = args.x.as<X>();
  Y* y = args.y.as<Y>();
  if (!args.signs && !args.mask) {
    for (int64_t g = first; g < last; ++g) TransformGroup(x + g * group, {}, group, scale, y + g * group);
    return;
  }
  const uint8_t* mask = args.mask ? args.mask.as<uint8_t>() : nullptr;
  const float* signs = args.signs ? args.signs.as<float>() : nullptr;
  const int64_t period = args.signs ? args.signs.size() : group;
  int64_t at = first * group % period;
  for (int64_t g = first; g < last; ++g) {
    GroupOptions here;
    if (mask != nullptr) here.mask = mask + g * group / 8;
    if (signs != nullptr) (args.inverse ? here.after : here.before) = signs + at;
    TransformGroup(x + g * group, here, group, scale, y + g * group);
    at += group;
    if (at == period) at = 0;
  }
}

}  // namespace

void RotateFloats(const float* x, int64_t count, int64_t group, float* y) {
  const float scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(group)));
  for (int64_t i = 0; i < count; i += group) TransformGroup(x + i, {}, group, scale, y + i);
}

void HadamardCpu(const HadamardArgs& args, Stream& stream) {
  const int64_t grain = std::max<int64_t>((int64_t{1} << 14) / args.group, 1);
  DispatchFloat(args.x.dtype(), [&](auto x_tag) {
    DispatchFloat(args.y.dtype(), [&](auto y_tag) {
      using X = typename decltype(x_tag)::type;
      using Y = typename decltype(y_tag)::type;
      stream.pool().ParallelFor(args.x.size() / args.group, grain,
                                [&](int64_t first, int64_t last) { TransformGroups<X, Y>(args, first, last); });
    });
  });
}

void RandomSignsCpu(const RandomSignsArgs& args, Stream& stream) {
  float* signs = args.signs.as<float>();
  stream.pool().ParallelFor(args.signs.size(), 1024, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      signs[i] = (RandomWord(args.random, static_cast<uint64_t>(i)) >> 31) != 0 ? -1.0f : 1.0f;
    }
  });
}

}  // namespace trainyard::kernels::internal
