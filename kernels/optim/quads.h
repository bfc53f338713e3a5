// For <op>_cuda.cu: four neighbouring elements a thread, as floats, of tensors in any mix of storage types. What a
// kernel branches on (the types, the rounding) is the same for all its threads, so one kernel serves every mix at the
// speed of memory: a quad is one load of 16 bytes (f32), 8 (bf16) or 4 (FP8).
//
// Loading and decoding are two steps, so that a kernel can have all its loads under way before it waits for the first.
#pragma once

#include <cstdint>
#include <initializer_list>

#include "kernels/core/block_reduce.h"
#include "kernels/core/philox.h"
#include "kernels/core/tensor.h"
#include "kernels/core/vec.h"
#include "kernels/quant/cast.h"

namespace trainyard::kernels::internal {

// What the lanes of a warp hold: the group of one scale of an E4M3 moment, half a block of 8-bit moments.
inline constexpr int64_t kWarpElements = 128;

// The memory of a tensor: f32, bf16, f16, E4M3, E5M2 or u8; null if it is not there.
struct QuadArray {
  void* data = nullptr;
  DType dtype = DType::kF32;

  QuadArray() = default;
  QuadArray(const TensorView& x) : data(x.data()), dtype(x.dtype()) {}  // NOLINT: reads like the tensor in args
};

// Whether elements 4 i .. 4 i + 3 lie aligned in all of them; tensors that are not there do not matter.
inline bool HasAlignedQuads(std::initializer_list<TensorView> tensors) {
  for (const TensorView& x : tensors) {
    if (reinterpret_cast<uintptr_t>(x.data()) % (4 * SizeOf(x.dtype())) != 0) return false;
  }
  return true;
}

// Where a quad lies: elements [at, at + count), count 0..4.
struct QuadPlace {
  int64_t at = 0;
  int count = 0;
  bool is_whole = false;  // four elements, aligned in every tensor

  __device__ QuadPlace(int64_t first, int64_t end, bool is_aligned)
      : at(first),
        count(end - first >= 4 ? 4
              : end > first    ? static_cast<int>(end - first)
                               : 0) {
    is_whole = is_aligned && count == 4;
  }
};

struct Quad {
  float x[4];
};
// As stored: words of f32, halves of bf16 and f16, bytes of FP8 and u8, from the lowest; 0 behind `count`.
struct RawQuad {
  uint32_t word[4];
};

__device__ inline RawQuad LoadWords(const void* data, const QuadPlace& place) {
  if (place.is_whole) {
    const Vec<uint32_t, 4> all = LoadVec<4>(static_cast<const uint32_t*>(data) + place.at);
    return {{all[0], all[1], all[2], all[3]}};
  }
  RawQuad raw = {};
  for (int j = 0; j < 4; ++j) {
    if (j < place.count) raw.word[j] = __builtin_bit_cast(uint32_t, static_cast<const float*>(data)[place.at + j]);
  }
  return raw;
}
__device__ inline RawQuad LoadHalves(const void* data, const QuadPlace& place) {
  if (place.is_whole) {
    const Vec<uint32_t, 2> all = LoadVec<2>(static_cast<const uint32_t*>(data) + place.at / 2);
    return {{all[0], all[1], 0, 0}};
  }
  RawQuad raw = {};
  for (int j = 0; j < 4; ++j) {
    if (j < place.count) {
      raw.word[j / 2] |= uint32_t{static_cast<const BFloat16*>(data)[place.at + j].bits} << (j % 2 * 16);
    }
  }
  return raw;
}
__device__ inline RawQuad LoadBytes(const void* data, const QuadPlace& place) {
  if (place.is_whole) {
    return {{LoadVec<1>(static_cast<const uint32_t*>(data) + place.at / 4)[0], 0, 0, 0}};
  }
  RawQuad raw = {};
  for (int j = 0; j < 4; ++j) {
    if (j < place.count) raw.word[0] |= uint32_t{static_cast<const uint8_t*>(data)[place.at + j]} << (j * 8);
  }
  return raw;
}

__device__ inline RawQuad LoadQuad(const QuadArray& array, const QuadPlace& place) {
  switch (array.dtype) {
    case DType::kF32:
      return LoadWords(array.data, place);
    case DType::kBF16:
    case DType::kF16:
      return LoadHalves(array.data, place);
    default:
      return LoadBytes(array.data, place);
  }
}

__device__ inline uint16_t HalfOf(const RawQuad& raw, int j) {
  return static_cast<uint16_t>(raw.word[j / 2] >> (j % 2 * 16));
}
__device__ inline uint8_t ByteOf(const RawQuad& raw, int j) {
  return static_cast<uint8_t>(raw.word[0] >> (j * 8));
}

// f32, bf16, E4M3 or E5M2; codes of FP8 without their scale.
__device__ inline Quad DecodeQuad(DType dtype, const RawQuad& raw) {
  Quad quad = {};
  switch (dtype) {
    case DType::kF32:
      for (int j = 0; j < 4; ++j) quad.x[j] = __builtin_bit_cast(float, raw.word[j]);
      break;
    case DType::kBF16:
      for (int j = 0; j < 4; ++j) quad.x[j] = ToFloat(BFloat16{HalfOf(raw, j)});
      break;
    case DType::kF8E4M3:
      for (int j = 0; j < 4; ++j) quad.x[j] = WidenToFloat(Float8E4M3{ByteOf(raw, j)});
      break;
    default:
      for (int j = 0; j < 4; ++j) quad.x[j] = WidenToFloat(Float8E5M2{ByteOf(raw, j)});
      break;
  }
  return quad;
}

__device__ inline void StoreWords(const RawQuad& raw, const QuadPlace& place, void* data) {
  if (place.is_whole) {
    StoreVec(static_cast<uint32_t*>(data) + place.at,
             Vec<uint32_t, 4>{{raw.word[0], raw.word[1], raw.word[2], raw.word[3]}});
    return;
  }
  for (int j = 0; j < 4; ++j) {
    if (j < place.count) static_cast<float*>(data)[place.at + j] = __builtin_bit_cast(float, raw.word[j]);
  }
}
__device__ inline void StoreHalves(const RawQuad& raw, const QuadPlace& place, void* data) {
  if (place.is_whole) {
    StoreVec(static_cast<uint32_t*>(data) + place.at / 2, Vec<uint32_t, 2>{{raw.word[0], raw.word[1]}});
    return;
  }
  for (int j = 0; j < 4; ++j) {
    if (j < place.count) {
      static_cast<BFloat16*>(data)[place.at + j].bits = HalfOf(raw, j);
    }
  }
}
__device__ inline void StoreBytes(const RawQuad& raw, const QuadPlace& place, void* data) {
  if (place.is_whole) {
    StoreVec(static_cast<uint32_t*>(data) + place.at / 4, Vec<uint32_t, 1>{{raw.word[0]}});
    return;
  }
  for (int j = 0; j < 4; ++j) {
    if (j < place.count) static_cast<uint8_t*>(data)[place.at + j] = ByteOf(raw, j);
  }
}

__device__ inline Quad LoadFloats(const float* data, const QuadPlace& place) {
  return DecodeQuad(DType::kF32, LoadWords(data, place));
}
__device__ inline void StoreFloats(const Quad& quad, const QuadPlace& place, float* data) {
  RawQuad raw = {};
  for (int j = 0; j < 4; ++j) raw.word[j] = __builtin_bit_cast(uint32_t, quad.x[j]);
  StoreWords(raw, place, data);
}

// The words of elements element .. element + 3 of the tensor: those of RandomWord.
__device__ inline RawQuad RandomQuad(const PhiloxKey& key, uint64_t element) {
  const auto block = static_cast<uint32_t>(element >> 2);
  const std::array<uint32_t, 4> low = RandomBlock(key, block);
  const auto skipped = static_cast<int>(element & 3);
  if (skipped == 0) return {{low[0], low[1], low[2], low[3]}};
  const std::array<uint32_t, 4> high = RandomBlock(key, block + 1);
  if (skipped == 1) return {{low[1], low[2], low[3], high[0]}};
  if (skipped == 2) return {{low[2], low[3], high[0], high[1]}};
  return {{low[3], high[0], high[1], high[2]}};
}

// How elements are rounded; `key` has the purpose. As BlockRounding (blocks.h).
struct QuadRounding {
  Rounding rounding = Rounding::kNearestEven;
  PhiloxKey key;
  int64_t first_element = 0;  // number of the view's first element in its tensor

  QuadRounding() = default;
  QuadRounding(Rounding how, const PhiloxKey& random, uint16_t purpose, int64_t first)
      : rounding(how), key(random), first_element(first) {
    key.purpose = purpose;
  }
  __device__ bool is_stochastic() const { return rounding == Rounding::kStochastic; }
  __device__ RawQuad Words(const QuadPlace& place) const {
    return RandomQuad(key, static_cast<uint64_t>(first_element + place.at));
  }
};

// To f32 as it is, or rounded to bf16: what StoreBlock (blocks.h) stores.
__device__ inline void StoreQuad(const Quad& quad, const QuadRounding& how, const QuadPlace& place,
                                 const QuadArray& array) {
  if (array.dtype == DType::kF32) return StoreFloats(quad, place, static_cast<float*>(array.data));
  RawQuad raw = {};
  if (how.is_stochastic()) {
    const RawQuad words = how.Words(place);
    for (int j = 0; j < 4; ++j) {
      raw.word[j / 2] |= uint32_t{RoundStochastic<BFloat16>(quad.x[j], words.word[j]).bits} << (j % 2 * 16);
    }
  } else {
    for (int j = 0; j < 4; ++j) raw.word[j / 2] |= uint32_t{FromFloat<BFloat16>(quad.x[j]).bits} << (j % 2 * 16);
  }
  StoreHalves(raw, place, array.data);
}

// The bits of the largest magnitude of the first `count`: NaN above all else.
__device__ inline uint32_t LargestBits(const Quad& quad, int count) {
  uint32_t largest = 0;
  for (int j = 0; j < 4; ++j) {
    const uint32_t magnitude = __builtin_bit_cast(uint32_t, quad.x[j]) & 0x7FFFFFFF;
    if (j < count && magnitude > largest) largest = magnitude;
  }
  return largest;
}

// A factor that may lie on the device.
__device__ inline float FactorOf(const float* factor) {
  return factor == nullptr ? 1.0f : *factor;
}
inline const float* FactorPointer(const TensorView& factor) {
  return factor ? factor.as<float>() : nullptr;
}

// Calls body(place) for the quads of elements [0, size), a quad a thread and a stride of the grid. Every lane of a warp
// takes part in the same rounds; behind the end with count 0.
template <typename Body>
__device__ inline void ForQuads(int64_t size, bool is_aligned, const Body& body) {
  const int64_t lane = threadIdx.x % 32;
  for (int64_t begin = (GlobalThread() - lane) * 4; begin < size; begin += GlobalThreads() * 4) {
    body(QuadPlace(begin + lane * 4, size, is_aligned));
  }
}

}  // namespace trainyard::kernels::internal
