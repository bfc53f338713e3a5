// The instructions that multiply codes: AVX2's 16-bit multiply-and-add of pairs, whose sums cannot overflow 32 bits,
// and AVX-512's 8-bit one of fours (VNNI), which adds in 32 bits. AVX2's own 8-bit instruction saturates its sums at 16
// bits and would be wrong for codes beyond 64.
#include <algorithm>
#include <cstring>

#include "kernels/core/simd.h"
#include "kernels/gemm/int_gemm_internal.h"

#if defined(__x86_64__)
#include <immintrin.h>
// GCC 12 warns of its own "undefined" placeholders inside these intrinsics (PR 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif

namespace trainyard::kernels::internal {
namespace {

int32_t ExpandTo16Bits(const uint8_t* codes, int64_t count, void* units) {
  int16_t* out = static_cast<int16_t*>(units);
  for (int64_t k = 0; k < count; ++k) out[k] = static_cast<int8_t>(codes[k]);
  return 0;
}

void ExpandRightTo16Bits(const uint8_t* codes, int64_t count, void* units) {
  ExpandTo16Bits(codes, count, units);
}

constexpr int64_t kPlainColumns = 16;

// Where there is no AVX2, and what the others are tested against.
void MultiplyPlain(const int32_t* a, int64_t a_stride, const int32_t* starts, int64_t rows, const int32_t* b,
                   int64_t units, int32_t* c, int64_t c_stride) {
  for (int64_t i = 0; i < rows; ++i) {
    int32_t sums[kPlainColumns] = {};
    for (int64_t u = 0; u < units; ++u) {
      const int32_t left = a[i * a_stride + u];
      for (int64_t j = 0; j < kPlainColumns; ++j) {
        const int32_t right = b[u * kPlainColumns + j];
        sums[j] += static_cast<int16_t>(left) * static_cast<int16_t>(right) + (left >> 16) * (right >> 16);
      }
    }
    for (int64_t j = 0; j < kPlainColumns; ++j) c[i * c_stride + j] += starts[i] + sums[j];
  }
}

#if defined(__x86_64__)

constexpr int64_t kNarrowRows = 4;
constexpr int64_t kNarrowColumns = 16;

template <int kRows>
inline void MultiplyNarrowRows(const int32_t* a, int64_t a_stride, const int32_t* starts, const int32_t* b,
                               int64_t units, int32_t* c, int64_t c_stride) {
  __m256i sums[kRows][2];
#pragma GCC unroll 4
  for (int i = 0; i < kRows; ++i) sums[i][0] = sums[i][1] = _mm256_set1_epi32(starts[i]);
  for (int64_t u = 0; u < units; ++u, b += kNarrowColumns) {
    const __m256i b0 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b));
    const __m256i b1 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b + 8));
#pragma GCC unroll 4
    for (int i = 0; i < kRows; ++i) {
      const __m256i left = _mm256_set1_epi32(a[i * a_stride + u]);
      sums[i][0] = _mm256_add_epi32(sums[i][0], _mm256_madd_epi16(left, b0));
      sums[i][1] = _mm256_add_epi32(sums[i][1], _mm256_madd_epi16(left, b1));
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < kRows; ++i) {
    for (int half = 0; half < 2; ++half) {
      __m256i* out = reinterpret_cast<__m256i*>(c + i * c_stride + 8 * half);
      _mm256_storeu_si256(out, _mm256_add_epi32(_mm256_loadu_si256(out), sums[i][half]));
    }
  }
}

void MultiplyNarrow(const int32_t* a, int64_t a_stride, const int32_t* starts, int64_t rows, const int32_t* b,
                    int64_t units, int32_t* c, int64_t c_stride) {
  switch (rows) {
    case 1:
      return MultiplyNarrowRows<1>(a, a_stride, starts, b, units, c, c_stride);
    case 2:
      return MultiplyNarrowRows<2>(a, a_stride, starts, b, units, c, c_stride);
    case 3:
      return MultiplyNarrowRows<3>(a, a_stride, starts, b, units, c, c_stride);
    default:
      return MultiplyNarrowRows<4>(a, a_stride, starts, b, units, c, c_stride);
  }
}

// Four codes a unit, the right one as code + 8, from 0 to 15: a pair of products lies within 2 * 15 * 128 = 3840, so
// that eight of them fit 16 bits.
constexpr int64_t kUnitsIn16Bits = 8;

int32_t ExpandLeftSmall(const uint8_t* codes, int64_t count, void* units) {
  std::memcpy(units, codes, static_cast<size_t>(count));
  int32_t sum = 0;
  for (int64_t k = 0; k < count; ++k) sum += static_cast<int8_t>(codes[k]);
  return -8 * sum;
}

void ExpandRightSmall(const uint8_t* codes, int64_t count, void* units) {
  uint8_t* out = static_cast<uint8_t*>(units);
  for (int64_t k = 0; k < count; ++k) out[k] = static_cast<uint8_t>(codes[k] + 8);
}

template <int kRows>
inline void MultiplySmallRows(const int32_t* a, int64_t a_stride, const int32_t* starts, const int32_t* b,
                              int64_t units, int32_t* c, int64_t c_stride) {
  const __m256i ones = _mm256_set1_epi16(1);
  for (int64_t first = 0; first < units; first += kUnitsIn16Bits) {
    __m256i sums[kRows][2];
#pragma GCC unroll 4
    for (int i = 0; i < kRows; ++i) sums[i][0] = sums[i][1] = _mm256_setzero_si256();
    const int64_t last = std::min(first + kUnitsIn16Bits, units);
    for (int64_t u = first; u < last; ++u, b += kNarrowColumns) {
      const __m256i b0 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b));
      const __m256i b1 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b + 8));
#pragma GCC unroll 4
      for (int i = 0; i < kRows; ++i) {
        const __m256i left = _mm256_set1_epi32(a[i * a_stride + u]);
        sums[i][0] = _mm256_add_epi16(sums[i][0], _mm256_maddubs_epi16(b0, left));
        sums[i][1] = _mm256_add_epi16(sums[i][1], _mm256_maddubs_epi16(b1, left));
      }
    }
#pragma GCC unroll 4
    for (int i = 0; i < kRows; ++i) {
      const __m256i start = _mm256_set1_epi32(first == 0 ? starts[i] : 0);
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half) {
        __m256i* out = reinterpret_cast<__m256i*>(c + i * c_stride + 8 * half);
        const __m256i sum = _mm256_add_epi32(_mm256_madd_epi16(sums[i][half], ones), start);
        _mm256_storeu_si256(out, _mm256_add_epi32(_mm256_loadu_si256(out), sum));
      }
    }
  }
}

void MultiplySmall(const int32_t* a, int64_t a_stride, const int32_t* starts, int64_t rows, const int32_t* b,
                   int64_t units, int32_t* c, int64_t c_stride) {
  switch (rows) {
    case 1:
      return MultiplySmallRows<1>(a, a_stride, starts, b, units, c, c_stride);
    case 2:
      return MultiplySmallRows<2>(a, a_stride, starts, b, units, c, c_stride);
    case 3:
      return MultiplySmallRows<3>(a, a_stride, starts, b, units, c, c_stride);
    default:
      return MultiplySmallRows<4>(a, a_stride, starts, b, units, c, c_stride);
  }
}

// Added to the baseline rather than an "arch=", as in kernels/codec/random_words.cc.
#define TY_VNNI __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni")))

constexpr int64_t kWideRows = 8;
constexpr int64_t kWideColumns = 32;

// The instruction multiplies unsigned by signed: b is taken as b + 128, and sum_k a (b + 128) is 128 sum_k a too large.
TY_VNNI int32_t ExpandLeftWide(const uint8_t* codes, int64_t count, void* units) {
  std::memcpy(units, codes, static_cast<size_t>(count));
  int32_t sum = 0;
  for (int64_t k = 0; k < count; ++k) sum += static_cast<int8_t>(codes[k]);
  return -128 * sum;
}

TY_VNNI void ExpandRightWide(const uint8_t* codes, int64_t count, void* units) {
  uint8_t* out = static_cast<uint8_t*>(units);
  for (int64_t k = 0; k < count; ++k) out[k] = codes[k] ^ 0x80;
}

template <int kRows>
TY_VNNI inline void MultiplyWideRows(const int32_t* a, int64_t a_stride, const int32_t* starts, const int32_t* b,
                                     int64_t units, int32_t* c, int64_t c_stride) {
  __m512i sums[kRows][2];
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) sums[i][0] = sums[i][1] = _mm512_set1_epi32(starts[i]);
  for (int64_t u = 0; u < units; ++u, b += kWideColumns) {
    const __m512i b0 = _mm512_loadu_si512(b);
    const __m512i b1 = _mm512_loadu_si512(b + 16);
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
      const __m512i left = _mm512_set1_epi32(a[i * a_stride + u]);
      sums[i][0] = _mm512_dpbusd_epi32(sums[i][0], b0, left);
      sums[i][1] = _mm512_dpbusd_epi32(sums[i][1], b1, left);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) {
    for (int half = 0; half < 2; ++half) {
      int32_t* out = c + i * c_stride + 16 * half;
      _mm512_storeu_si512(out, _mm512_add_epi32(_mm512_loadu_si512(out), sums[i][half]));
    }
  }
}

TY_VNNI void MultiplyWide(const int32_t* a, int64_t a_stride, const int32_t* starts, int64_t rows, const int32_t* b,
                          int64_t units, int32_t* c, int64_t c_stride) {
  for (; rows >= 8; rows -= 8, a += 8 * a_stride, starts += 8, c += 8 * c_stride) {
    MultiplyWideRows<8>(a, a_stride, starts, b, units, c, c_stride);
  }
  if (rows >= 4) {
    MultiplyWideRows<4>(a, a_stride, starts, b, units, c, c_stride);
    rows -= 4;
    a += 4 * a_stride;
    starts += 4;
    c += 4 * c_stride;
  }
  for (; rows > 0; --rows, a += a_stride, ++starts, c += c_stride) {
    MultiplyWideRows<1>(a, a_stride, starts, b, units, c, c_stride);
  }
}

bool HasWide() {
  return __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vnni");
}

#endif

}  // namespace

std::vector<IntKernel> AllIntKernels() {
  std::vector<IntKernel> all;
#if defined(__x86_64__)
  if (HasWide()) {
    all.push_back({.name = "vnni",
                   .only_small_right = false,
                   .unit_codes = 4,
                   .tile_rows = kWideRows,
                   .tile_columns = kWideColumns,
                   .expand_left = ExpandLeftWide,
                   .expand_right = ExpandRightWide,
                   .multiply = MultiplyWide});
  }
  all.push_back({.name = "avx2_int4",
                 .only_small_right = true,
                 .unit_codes = 4,
                 .tile_rows = kNarrowRows,
                 .tile_columns = kNarrowColumns,
                 .expand_left = ExpandLeftSmall,
                 .expand_right = ExpandRightSmall,
                 .multiply = MultiplySmall});
  all.push_back({.name = "avx2",
                 .only_small_right = false,
                 .unit_codes = 2,
                 .tile_rows = kNarrowRows,
                 .tile_columns = kNarrowColumns,
                 .expand_left = ExpandTo16Bits,
                 .expand_right = ExpandRightTo16Bits,
                 .multiply = MultiplyNarrow});
#endif
  all.push_back({.name = "plain",
                 .only_small_right = false,
                 .unit_codes = 2,
                 .tile_rows = 1,
                 .tile_columns = kPlainColumns,
                 .expand_left = ExpandTo16Bits,
                 .expand_right = ExpandRightTo16Bits,
                 .multiply = MultiplyPlain});
  return all;
}

const IntKernel& FastestIntKernel(const IntCodes& right) {
  static const std::vector<IntKernel> all = AllIntKernels();
  size_t choice = 0;
  while (all[choice].only_small_right && !right.packed) ++choice;
  return all[choice];
}

}  // namespace trainyard::kernels::internal
