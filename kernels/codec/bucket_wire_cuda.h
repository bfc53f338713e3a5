// For <code>_cuda.cu: the loops of bucket_wire.h on a CUDA device. A warp sums up a bucket and codes it; one thread
// decodes eight values.
//
// A code is a struct of what the kernel needs, passed by value:
//
//   using Record = ...;                                            // of trivial type, 4-byte aligned
//   __device__ void Prepare();                                     // called once by all threads of a block
//   __device__ Record Summarise(const float* x, int count) const;  // of a bucket; by all lanes of a warp, all get it
//   __device__ void Codes(const Record&, const float (&x)[8], int64_t first, int32_t (&codes)[8]) const;
//   __device__ void Values(const Record&, const int32_t (&codes)[8], float (&y)[8]) const;
//
// `first` is the number of x[0] within the vector. Whatever order lanes work in, Summarise must give the bits of
// bucket_summary.cc: extremes have no order, sums have SumOverLanes.
#pragma once

#include <cstdint>

#include "kernels/codec/bucket_wire.h"
#include "kernels/core/block_reduce.h"
#include "kernels/core/philox.h"
#include "kernels/core/simd.h"

namespace trainyard::kernels::internal {

// The sums of bucket_summary.cc have 32 lanes, element i belonging to lane i % 32, added up in the order of the lanes.
// `value` is the calling lane's. All lanes get the sum.
__device__ inline double SumOverLanes(double value) {
  double sum = 0;
  for (int lane = 0; lane < 32; ++lane) sum += __shfl_sync(0xFFFFFFFFu, value, lane);
  return sum;
}

struct WireLayout {
  int64_t elements, bucket_size, buckets, code_bytes;
  int bits, record_bytes;
  uint8_t* records;
  uint8_t* codes;
  bool has_aligned_records;  // to 4 bytes
  bool has_aligned_codes;    // to 8
};

inline WireLayout LayoutOf(const BucketWire& wire, uint8_t* memory) {
  WireLayout layout = {};
  layout.elements = wire.elements;
  layout.bucket_size = wire.bucket_size;
  layout.buckets = wire.buckets();
  layout.code_bytes = wire.code_bytes();
  layout.bits = wire.bits;
  layout.record_bytes = static_cast<int>(wire.record_bytes);
  layout.records = memory;
  layout.codes = memory + wire.codes_offset();
  layout.has_aligned_records = reinterpret_cast<uintptr_t>(layout.records) % 4 == 0;
  layout.has_aligned_codes = reinterpret_cast<uintptr_t>(layout.codes) % 8 == 0;
  return layout;
}

struct alignas(16) FourFloats {
  float value[4];
};
inline bool IsAlignedForFour(const void* data) {
  return reinterpret_cast<uintptr_t>(data) % sizeof(FourFloats) == 0;
}

// Elements first .. first + 7; zeros beyond `count`.
__device__ inline void LoadEight(const float* x, int64_t first, int64_t count, bool is_aligned, float (&out)[8]) {
  if (is_aligned && first + 8 <= count) {
    const FourFloats* const fours = reinterpret_cast<const FourFloats*>(x + first);
    const FourFloats low = fours[0], high = fours[1];
    for (int j = 0; j < 4; ++j) {
      out[j] = low.value[j];
      out[4 + j] = high.value[j];
    }
    return;
  }
  for (int j = 0; j < 8; ++j) out[j] = first + j < count ? x[first + j] : 0.0f;
}

__device__ inline void StoreEight(const float (&values)[8], int64_t first, int64_t count, bool is_aligned, float* y) {
  if (is_aligned && first + 8 <= count) {
    FourFloats low, high;
    for (int j = 0; j < 4; ++j) {
      low.value[j] = values[j];
      high.value[j] = values[4 + j];
    }
    FourFloats* const fours = reinterpret_cast<FourFloats*>(y + first);
    fours[0] = low;
    fours[1] = high;
    return;
  }
  for (int j = 0; j < 8; ++j) {
    if (first + j < count) y[first + j] = values[j];
  }
}

// Eight codes, code j in bits j * bits and up of the word: `bits` bytes at codes + group * bits. Bytes beyond the wire
// hold zeros only and are left out.
__device__ inline void StoreGroup(const WireLayout& wire, int64_t group, uint64_t word) {
  const int64_t at = group * wire.bits;
  uint8_t* const out = wire.codes + at;
  if (wire.has_aligned_codes && at + wire.bits <= wire.code_bytes) {
    switch (wire.bits) {
      case 1:
        *out = static_cast<uint8_t>(word);
        return;
      case 2:
        *reinterpret_cast<uint16_t*>(out) = static_cast<uint16_t>(word);
        return;
      case 4:
        *reinterpret_cast<uint32_t*>(out) = static_cast<uint32_t>(word);
        return;
      case 8:
        *reinterpret_cast<uint64_t*>(out) = word;
        return;
      default:
        break;
    }
  }
  for (int byte = 0; byte < wire.bits; ++byte) {
    if (at + byte < wire.code_bytes) out[byte] = static_cast<uint8_t>(word >> (8 * byte));
  }
}

__device__ inline uint64_t LoadGroup(const WireLayout& wire, int64_t group) {
  const int64_t at = group * wire.bits;
  const uint8_t* const in = wire.codes + at;
  if (wire.has_aligned_codes && at + wire.bits <= wire.code_bytes) {
    switch (wire.bits) {
      case 1:
        return *in;
      case 2:
        return *reinterpret_cast<const uint16_t*>(in);
      case 4:
        return *reinterpret_cast<const uint32_t*>(in);
      case 8:
        return *reinterpret_cast<const uint64_t*>(in);
      default:
        break;
    }
  }
  uint64_t word = 0;
  for (int byte = 0; byte < wire.bits; ++byte) {
    if (at + byte < wire.code_bytes) word |= static_cast<uint64_t>(in[byte]) << (8 * byte);
  }
  return word;
}

template <typename Record>
__device__ inline void StoreRecord(const WireLayout& wire, int64_t bucket, const Record& record) {
  uint8_t* const out = wire.records + bucket * wire.record_bytes;
  if (wire.has_aligned_records) {
    *reinterpret_cast<Record*>(out) = record;
    return;
  }
  const uint8_t* const bytes = reinterpret_cast<const uint8_t*>(&record);
  for (size_t i = 0; i < sizeof(Record); ++i) out[i] = bytes[i];
}

template <typename Record>
__device__ inline Record LoadRecord(const WireLayout& wire, int64_t bucket) {
  const uint8_t* const in = wire.records + bucket * wire.record_bytes;
  if (wire.has_aligned_records) return *reinterpret_cast<const Record*>(in);
  Record record;
  uint8_t* const bytes = reinterpret_cast<uint8_t*>(&record);
  for (size_t i = 0; i < sizeof(Record); ++i) bytes[i] = in[i];
  return record;
}

inline constexpr int kWarpsABlock = 8;

template <typename Code>
__global__ void EncodeBucketsKernel(Code code, const float* x, bool is_aligned, WireLayout wire) {
  code.Prepare();
  const int lane = static_cast<int>(threadIdx.x % 32);
  const int64_t groups = (wire.elements + 7) / 8;
  for (int64_t bucket = int64_t{blockIdx.x} * kWarpsABlock + threadIdx.x / 32; bucket < wire.buckets;
       bucket += int64_t{gridDim.x} * kWarpsABlock) {
    const int64_t begin = bucket * wire.bucket_size;
    const int64_t end = begin + wire.bucket_size < wire.elements ? begin + wire.bucket_size : wire.elements;
    const typename Code::Record record = code.Summarise(x + begin, static_cast<int>(end - begin));
    if (lane == 0) StoreRecord(wire, bucket, record);
    for (int64_t first = begin + 8 * lane; first < end; first += 8 * 32) {
      float values[8];
      int32_t codes[8];
      LoadEight(x, first, end, is_aligned, values);
      code.Codes(record, values, first, codes);
      uint64_t word = 0;
      for (int j = 0; j < 8; ++j) {
        if (first + j < end) word |= static_cast<uint64_t>(codes[j]) << (j * wire.bits);
      }
      StoreGroup(wire, first / 8, word);
    }
  }
  // The zeros behind the last group.
  if (blockIdx.x == 0 && threadIdx.x < 8 && groups * wire.bits + threadIdx.x < wire.code_bytes) {
    wire.codes[groups * wire.bits + threadIdx.x] = 0;
  }
}

template <typename Code>
__global__ void DecodeBucketsKernel(Code code, WireLayout wire, bool is_aligned, float* y) {
  code.Prepare();
  const uint64_t mask = (uint64_t{1} << wire.bits) - 1;
  const int64_t groups = (wire.elements + 7) / 8;
  for (int64_t group = GlobalThread(); group < groups; group += GlobalThreads()) {
    const typename Code::Record record = LoadRecord<typename Code::Record>(wire, group * 8 / wire.bucket_size);
    const uint64_t word = LoadGroup(wire, group);
    int32_t codes[8];
    float values[8];
    for (int j = 0; j < 8; ++j) codes[j] = static_cast<int32_t>((word >> (j * wire.bits)) & mask);
    code.Values(record, codes, values);
    StoreEight(values, group * 8, wire.elements, is_aligned, y);
  }
}

template <typename Code>
void EncodeBucketsCuda(const BucketWire& wire, const Code& code, const float* x, uint8_t* out, Stream& stream) {
  if (wire.elements == 0) return;
  constexpr int64_t kMostBlocks = 132 * 16;
  const int64_t blocks = (wire.buckets() + kWarpsABlock - 1) / kWarpsABlock;
  Launch(stream, {.blocks = blocks < kMostBlocks ? blocks : kMostBlocks, .threads = 32 * kWarpsABlock},
         EncodeBucketsKernel<Code>, code, x, IsAlignedForFour(x), LayoutOf(wire, out));
}

template <typename Code>
void DecodeBucketsCuda(const BucketWire& wire, const Code& code, uint8_t* in, float* y, Stream& stream) {
  if (wire.elements == 0) return;
  Launch(stream, ElementwiseGrid(wire.elements, 8), DecodeBucketsKernel<Code>, code, LayoutOf(wire, in),
         IsAlignedForFour(y), y);
}

// The draws of elements element .. element + 7 of the tensor, as RandomWord gives them.
__device__ inline void DrawEight(const PhiloxKey& key, int64_t element, float (&draws)[8]) {
  const uint64_t first = static_cast<uint64_t>(element);
  const uint32_t block = static_cast<uint32_t>(first >> 2);
  const int skipped = static_cast<int>(first & 3);
  uint32_t words[12] = {};
  for (int b = 0; b < 3; ++b) {
    if (b == 2 && skipped == 0) break;
    const std::array<uint32_t, 4> four = RandomBlock(key, block + static_cast<uint32_t>(b));
    for (int w = 0; w < 4; ++w) words[4 * b + w] = four[static_cast<size_t>(w)];
  }
  // Selections, not an index: the words stay in registers.
  for (int j = 0; j < 8; ++j) {
    const uint32_t low = skipped == 0 ? words[j] : words[j + 1];
    const uint32_t high = skipped == 2 ? words[j + 2] : words[j + 3];
    draws[j] = ToUniform(skipped < 2 ? low : high);
  }
}

}  // namespace trainyard::kernels::internal
