// The wire form that all bucket codes share, and the loops over it:
//
//   [ceil(n / bucket_size) metadata records][codes of all n elements, packed][zeros up to a multiple of 8 code bytes]
//
// Buckets restart at each slice. Records and codes lie unaligned in the sender's byte order (little-endian).
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "kernels/codec/bit_packing.h"
#include "kernels/core/stream.h"

namespace trainyard::kernels {

struct BucketWire {
  int64_t elements = 0;
  int64_t bucket_size = 512;  // a multiple of 8
  int bits = 4;
  int64_t record_bytes = 8;  // metadata of a bucket

  int64_t buckets() const { return (elements + bucket_size - 1) / bucket_size; }
  int64_t codes_offset() const { return buckets() * record_bytes; }
  int64_t code_bytes() const { return (PackedBytes(elements, bits) + 7) / 8 * 8; }
  int64_t bytes() const { return codes_offset() + code_bytes(); }
};

inline constexpr int64_t kSmallestBucket = 64;
inline constexpr int64_t kLargestBucket = 8192;
inline bool IsBucketSize(int64_t size) {
  return size >= kSmallestBucket && size <= kLargestBucket && size % 8 == 0;
}

namespace internal {

inline constexpr int64_t kCodeChunk = 1024;  // codes that are computed, then packed; a multiple of 8

inline int64_t BucketGrain(const BucketWire& wire) {
  return std::max<int64_t>(1, (1 << 15) / wire.bucket_size);
}

// summarise(begin, count) gives the Record of a bucket; fill(record, begin, count, codes) the codes of at most
// kCodeChunk of its elements.
template <typename Record, typename Summarise, typename Fill>
void EncodeBuckets(const BucketWire& wire, uint8_t* out, Stream& stream, const Summarise& summarise, const Fill& fill) {
  if (wire.elements == 0) return;
  uint8_t* const packed = out + wire.codes_offset();
  stream.pool().ParallelFor(wire.buckets(), BucketGrain(wire), [&](int64_t first_bucket, int64_t last_bucket) {
    uint8_t codes[kCodeChunk];
    for (int64_t bucket = first_bucket; bucket < last_bucket; ++bucket) {
      const int64_t begin = bucket * wire.bucket_size;
      const int64_t end = std::min(wire.elements, begin + wire.bucket_size);
      const Record record = summarise(begin, end - begin);
      std::memcpy(out + bucket * wire.record_bytes, &record, sizeof(Record));
      for (int64_t first = begin; first < end; first += kCodeChunk) {
        const int64_t count = std::min(kCodeChunk, end - first);
        fill(record, first, count, codes);
        PackCodes(codes, count, wire.bits, packed + first / 8 * wire.bits);
      }
    }
  });
  const int64_t used = PackedBytes(wire.elements, wire.bits);
  std::memset(packed + used, 0, static_cast<size_t>(wire.code_bytes() - used));
}

// value(record, begin, count, codes) writes the elements.
template <typename Record, typename Value>
void DecodeBuckets(const BucketWire& wire, const uint8_t* in, Stream& stream, const Value& value) {
  if (wire.elements == 0) return;
  const uint8_t* const packed = in + wire.codes_offset();
  stream.pool().ParallelFor(wire.buckets(), BucketGrain(wire), [&](int64_t first_bucket, int64_t last_bucket) {
    uint8_t codes[kCodeChunk];
    for (int64_t bucket = first_bucket; bucket < last_bucket; ++bucket) {
      const int64_t begin = bucket * wire.bucket_size;
      const int64_t end = std::min(wire.elements, begin + wire.bucket_size);
      Record record;
      std::memcpy(&record, in + bucket * wire.record_bytes, sizeof(Record));
      for (int64_t first = begin; first < end; first += kCodeChunk) {
        const int64_t count = std::min(kCodeChunk, end - first);
        UnpackCodes(packed + first / 8 * wire.bits, count, wire.bits, codes);
        value(record, first, count, codes);
      }
    }
  });
}

}  // namespace internal
}  // namespace trainyard::kernels
