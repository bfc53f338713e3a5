#include "kernels/codec/random_words.h"

#if defined(__x86_64__)
#include <immintrin.h>
// GCC 12 warns of its own "undefined" placeholders inside these intrinsics (PR 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif

namespace trainyard::kernels {
namespace {

#if defined(__x86_64__)

// Added to the baseline rather than an "arch=", which would take its AES away, and with that GCC inlines no intrinsic.
#define TY_WIDE __attribute__((target("avx512f")))

// One counter a 64-bit lane; the products need only the low halves of their operands, so the high halves may hold
// anything. The compiler's own vectorisation of Philox4x32 is three times slower: it multiplies and then sorts out
// halves. kGroups independent vectors hide the latency of the multiplier.
template <int kGroups>
TY_WIDE inline void DrawWide(const PhiloxKey& key, uint32_t block, uint32_t* words) {
  const __m512i multiplier0 = _mm512_set1_epi64(0xD2511F53);
  const __m512i multiplier1 = _mm512_set1_epi64(0xCD9E8D57);
  __m512i c0[kGroups], c1[kGroups], c2[kGroups], c3[kGroups];
  for (int g = 0; g < kGroups; ++g) {
    c0[g] = _mm512_add_epi64(_mm512_set1_epi64(block + 8 * static_cast<uint32_t>(g)),
                             _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0));
    c1[g] = _mm512_set1_epi64(key.tensor);
    c2[g] = _mm512_set1_epi64(key.step);
    c3[g] = _mm512_set1_epi64((uint32_t{key.purpose} << 16) | key.micro_step);
  }
  uint32_t key0 = static_cast<uint32_t>(key.seed);
  uint32_t key1 = static_cast<uint32_t>(key.seed >> 32);
#pragma GCC unroll 10
  for (int round = 0; round < 10; ++round) {
    const __m512i k0 = _mm512_set1_epi64(key0);
    const __m512i k1 = _mm512_set1_epi64(key1);
    for (int g = 0; g < kGroups; ++g) {
      const __m512i product0 = _mm512_mul_epu32(c0[g], multiplier0);
      const __m512i product1 = _mm512_mul_epu32(c2[g], multiplier1);
      c0[g] = _mm512_ternarylogic_epi64(_mm512_srli_epi64(product1, 32), c1[g], k0, 0x96);  // xor of three
      c1[g] = product1;
      c2[g] = _mm512_ternarylogic_epi64(_mm512_srli_epi64(product0, 32), c3[g], k1, 0x96);
      c3[g] = product0;
    }
    key0 += 0x9E3779B9;
    key1 += 0xBB67AE85;
  }
  const __m512i first_half = _mm512_set_epi64(11, 3, 10, 2, 9, 1, 8, 0);
  const __m512i second_half = _mm512_set_epi64(15, 7, 14, 6, 13, 5, 12, 4);
  for (int g = 0; g < kGroups; ++g) {
    const __m512i words01 = _mm512_mask_blend_epi32(0xAAAA, c0[g], _mm512_slli_epi64(c1[g], 32));
    const __m512i words23 = _mm512_mask_blend_epi32(0xAAAA, c2[g], _mm512_slli_epi64(c3[g], 32));
    _mm512_storeu_si512(words + 32 * g, _mm512_permutex2var_epi64(words01, first_half, words23));
    _mm512_storeu_si512(words + 32 * g + 16, _mm512_permutex2var_epi64(words01, second_half, words23));
  }
}

// `blocks` is rounded up to a multiple of 8.
TY_WIDE void DrawBlocksWide(const PhiloxKey& key, uint32_t first, int64_t blocks, uint32_t* words) {
  for (; blocks > 24; blocks -= 32, first += 32, words += 128) DrawWide<4>(key, first, words);
  for (; blocks > 0; blocks -= 8, first += 8, words += 32) DrawWide<1>(key, first, words);
}

template <int kGroups>
inline void DrawNarrow(const PhiloxKey& key, uint32_t block, uint32_t* words) {
  const __m256i multiplier0 = _mm256_set1_epi64x(0xD2511F53);
  const __m256i multiplier1 = _mm256_set1_epi64x(0xCD9E8D57);
  __m256i c0[kGroups], c1[kGroups], c2[kGroups], c3[kGroups];
  for (int g = 0; g < kGroups; ++g) {
    c0[g] = _mm256_add_epi64(_mm256_set1_epi64x(block + 4 * static_cast<uint32_t>(g)), _mm256_set_epi64x(3, 2, 1, 0));
    c1[g] = _mm256_set1_epi64x(key.tensor);
    c2[g] = _mm256_set1_epi64x(key.step);
    c3[g] = _mm256_set1_epi64x((uint32_t{key.purpose} << 16) | key.micro_step);
  }
  uint32_t key0 = static_cast<uint32_t>(key.seed);
  uint32_t key1 = static_cast<uint32_t>(key.seed >> 32);
#pragma GCC unroll 10
  for (int round = 0; round < 10; ++round) {
    const __m256i k0 = _mm256_set1_epi64x(key0);
    const __m256i k1 = _mm256_set1_epi64x(key1);
    for (int g = 0; g < kGroups; ++g) {
      const __m256i product0 = _mm256_mul_epu32(c0[g], multiplier0);
      const __m256i product1 = _mm256_mul_epu32(c2[g], multiplier1);
      c0[g] = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(product1, 32), c1[g]), k0);
      c1[g] = product1;
      c2[g] = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(product0, 32), c3[g]), k1);
      c3[g] = product0;
    }
    key0 += 0x9E3779B9;
    key1 += 0xBB67AE85;
  }
  for (int g = 0; g < kGroups; ++g) {
    const __m256i words01 = _mm256_blend_epi32(c0[g], _mm256_slli_epi64(c1[g], 32), 0xAA);
    const __m256i words23 = _mm256_blend_epi32(c2[g], _mm256_slli_epi64(c3[g], 32), 0xAA);
    const __m256i even = _mm256_unpacklo_epi64(words01, words23);  // counters 0 and 2
    const __m256i odd = _mm256_unpackhi_epi64(words01, words23);
    __m256i* out = reinterpret_cast<__m256i*>(words + 16 * g);
    _mm256_storeu_si256(out, _mm256_permute2x128_si256(even, odd, 0x20));
    _mm256_storeu_si256(out + 1, _mm256_permute2x128_si256(even, odd, 0x31));
  }
}

void DrawBlocksNarrow(const PhiloxKey& key, uint32_t first, int64_t blocks, uint32_t* words) {
  for (; blocks > 12; blocks -= 16, first += 16, words += 64) DrawNarrow<4>(key, first, words);
  for (; blocks > 0; blocks -= 4, first += 4, words += 16) DrawNarrow<1>(key, first, words);
}

#endif

void DrawBlocksPlain(const PhiloxKey& key, uint32_t first, int64_t blocks, uint32_t* words) {
  for (int64_t block = 0; block < blocks; ++block) {
    const std::array<uint32_t, 4> four = RandomBlock(key, first + static_cast<uint32_t>(block));
    for (size_t w = 0; w < 4; ++w) words[4 * block + static_cast<int64_t>(w)] = four[w];
  }
}

}  // namespace

std::vector<internal::DrawBlocks> internal::AllDrawBlocks() {
  std::vector<DrawBlocks> all;
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) all.push_back(DrawBlocksWide);
  all.push_back(DrawBlocksNarrow);
#endif
  all.push_back(DrawBlocksPlain);
  return all;
}

const uint32_t* RandomWords(const PhiloxKey& key, uint64_t first, int64_t count, uint32_t* buffer) {
  const int64_t skipped = static_cast<int64_t>(first & 3);
  static const internal::DrawBlocks draw = internal::AllDrawBlocks().front();
  draw(key, static_cast<uint32_t>(first >> 2), (skipped + count + 3) / 4, buffer);
  return buffer + skipped;
}

}  // namespace trainyard::kernels
