#include "kernels/codec/bit_packing.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "kernels/core/simd.h"

namespace trainyard::kernels {
namespace {

constexpr int64_t kGroups = 128;  // groups of eight codes handled at a time, in the first-level cache

// The low `low` bits of every field of `field` bits.
constexpr uint64_t FieldMask(int field, int low) {
  uint64_t mask = 0;
  for (int at = 0; at < 64; at += field) mask |= ((low == 64 ? 0 : uint64_t{1} << low) - 1) << at;
  return mask;
}

// Neighbouring fields move together: bytes of kBits, then pairs of 2 kBits, then fours of 4 kBits.
template <int kBits>
TY_INLINE uint64_t Squeeze(uint64_t word) {
  word = (word & FieldMask(16, kBits)) | ((word >> (8 - kBits)) & (FieldMask(16, kBits) << kBits));
  word = (word & FieldMask(32, 2 * kBits)) | ((word >> (16 - 2 * kBits)) & (FieldMask(32, 2 * kBits) << (2 * kBits)));
  return (word & FieldMask(64, 4 * kBits)) | ((word >> (32 - 4 * kBits)) & (FieldMask(64, 4 * kBits) << (4 * kBits)));
}

template <int kBits>
TY_INLINE uint64_t Spread(uint64_t word) {
  word = (word & FieldMask(64, 4 * kBits)) | ((word & (FieldMask(64, 4 * kBits) << (4 * kBits))) << (32 - 4 * kBits));
  word = (word & FieldMask(32, 2 * kBits)) | ((word & (FieldMask(32, 2 * kBits) << (2 * kBits))) << (16 - 2 * kBits));
  return (word & FieldMask(16, kBits)) | ((word & (FieldMask(16, kBits) << kBits)) << (8 - kBits));
}

template <int kBits>
TY_INLINE void SqueezeAll(uint64_t* words, int64_t groups) {
  for (int64_t g = 0; g < groups; ++g) words[g] = Squeeze<kBits>(words[g]);
}
template <int kBits>
TY_INLINE void SpreadAll(uint64_t* words, int64_t groups) {
  for (int64_t g = 0; g < groups; ++g) words[g] = Spread<kBits>(words[g]);
}

#define TY_PACKING(bits)                                        \
  TY_SIMD void Squeeze##bits(uint64_t* words, int64_t groups) { \
    SqueezeAll<bits>(words, groups);                            \
  }                                                             \
  TY_SIMD void Spread##bits(uint64_t* words, int64_t groups) {  \
    SpreadAll<bits>(words, groups);                             \
  }
TY_PACKING(1)
TY_PACKING(2)
TY_PACKING(3)
TY_PACKING(4)
TY_PACKING(5)
TY_PACKING(6)
TY_PACKING(7)
#undef TY_PACKING

using Transform = void (*)(uint64_t* words, int64_t groups);
constexpr Transform kSqueeze[] = {nullptr, Squeeze1, Squeeze2, Squeeze3, Squeeze4, Squeeze5, Squeeze6, Squeeze7};
constexpr Transform kSpread[] = {nullptr, Spread1, Spread2, Spread3, Spread4, Spread5, Spread6, Spread7};

// Words of kBits bytes each, as they lie on the wire. Whole words are moved where another follows.
template <int kBits>
void StoreWords(const uint64_t* words, int64_t groups, uint8_t* packed) {
  for (int64_t g = 0; g < groups; ++g) std::memcpy(packed + g * kBits, &words[g], sizeof(uint64_t));
}
template <int kBits>
void LoadWords(const uint8_t* packed, int64_t groups, uint64_t* words) {
  for (int64_t g = 0; g < groups; ++g) std::memcpy(&words[g], packed + g * kBits, sizeof(uint64_t));
}

// Calls body.template operator()<bits>().
template <typename Body>
void WithBits(int bits, const Body& body) {
  switch (bits) {
    case 1:
      return body.template operator()<1>();
    case 2:
      return body.template operator()<2>();
    case 3:
      return body.template operator()<3>();
    case 4:
      return body.template operator()<4>();
    case 5:
      return body.template operator()<5>();
    case 6:
      return body.template operator()<6>();
    case 7:
      return body.template operator()<7>();
    default:
      TY_CHECK(false && "codes have 1 to 8 bits");
  }
}

}  // namespace

void PackCodes(const uint8_t* codes, int64_t count, int bits, uint8_t* packed) {
  if (count == 0) return;
  if (bits == 8) {
    std::memcpy(packed, codes, static_cast<size_t>(count));
    return;
  }
  uint64_t words[kGroups];
  uint8_t bytes[kGroups * 7 + 8];
  for (int64_t first = 0; first < count; first += 8 * kGroups) {
    const int64_t in_block = std::min(8 * kGroups, count - first);
    const int64_t groups = (in_block + 7) / 8;
    words[groups - 1] = 0;
    std::memcpy(words, codes + first, static_cast<size_t>(in_block));
    kSqueeze[bits](words, groups);
    WithBits(bits, [&]<int kBits>() { StoreWords<kBits>(words, groups, bytes); });
    std::memcpy(packed + first / 8 * bits, bytes, static_cast<size_t>(PackedBytes(in_block, bits)));
  }
}

void UnpackCodes(const uint8_t* packed, int64_t count, int bits, uint8_t* codes) {
  if (count == 0) return;
  if (bits == 8) {
    std::memcpy(codes, packed, static_cast<size_t>(count));
    return;
  }
  uint64_t words[kGroups];
  uint8_t bytes[kGroups * 7 + 8] = {};
  for (int64_t first = 0; first < count; first += 8 * kGroups) {
    const int64_t in_block = std::min(8 * kGroups, count - first);
    const int64_t groups = (in_block + 7) / 8;
    std::memcpy(bytes, packed + first / 8 * bits, static_cast<size_t>(PackedBytes(in_block, bits)));
    WithBits(bits, [&]<int kBits>() { LoadWords<kBits>(bytes, groups, words); });
    kSpread[bits](words, groups);
    std::memcpy(codes + first, words, static_cast<size_t>(in_block));
  }
}

}  // namespace trainyard::kernels
