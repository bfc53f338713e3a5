#include "kernels/transform/random_projection.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <numeric>

#include "base/check.h"
#include "kernels/core/philox.h"
#include "kernels/core/simd.h"
#include "kernels/tangent/random_direction.h"

namespace trainyard::kernels {
namespace {

// Floats that stay in the cache of one core while all their short strides are done.
constexpr int64_t kCacheBlock = 1 << 13;

// Butterflies of strides [first, last) over data (size).
TY_SIMD void Butterflies(float* data, int64_t size, int64_t first, int64_t last) {
  for (int64_t stride = first; stride < last; stride *= 2) {
    for (int64_t begin = 0; begin < size; begin += 2 * stride) {
      float* const a = data + begin;
      float* const b = a + stride;
#pragma GCC ivdep
      for (int64_t i = 0; i < stride; ++i) {
        const float sum = a[i] + b[i];
        const float difference = a[i] - b[i];
        a[i] = sum;
        b[i] = difference;
      }
    }
  }
}

// One stride at columns [begin, end) of every pair of runs.
TY_SIMD void LongButterflies(float* data, int64_t size, int64_t stride, int64_t begin, int64_t end) {
  for (int64_t run = 0; run < size; run += 2 * stride) {
    float* const a = data + run;
    float* const b = a + stride;
#pragma GCC ivdep
    for (int64_t i = begin; i < end; ++i) {
      const float sum = a[i] + b[i];
      const float difference = a[i] - b[i];
      a[i] = sum;
      b[i] = difference;
    }
  }
}

// out[i] = +-x[i], 32 signs a word.
void FlipSigns(const PhiloxKey& key, const float* x, float* out, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end;) {
    uint32_t word = RandomWord(key, static_cast<uint64_t>(i) / 32) >> (i % 32);
    const int64_t stop = std::min(end, (i / 32 + 1) * 32);
    for (; i < stop; ++i, word >>= 1) out[i] = (word & 1) != 0 ? -x[i] : x[i];
  }
}

// sum over i of +-x[i]: f32 in blocks, f64 over them.
double SignedSum(const PhiloxKey& key, uint64_t row, int64_t words, const float* x, int64_t length) {
  constexpr int64_t kBlock = 1024;
  double total = 0;
  float sum = 0;
  for (int64_t i = 0; i < length;) {
    uint32_t word = RandomWord(key, row * static_cast<uint64_t>(words) + static_cast<uint64_t>(i) / 32);
    const int64_t stop = std::min(length, i + 32);
    for (; i < stop; ++i, word >>= 1) sum += (word & 1) != 0 ? -x[i] : x[i];
    if (i % kBlock == 0) {
      total += sum;
      sum = 0;
    }
  }
  return total + sum;
}

}  // namespace

void WalshHadamard(float* data, int64_t size, Stream& stream) {
  TY_CHECK(size >= 1 && (size & (size - 1)) == 0);
  const int64_t block = std::min(size, kCacheBlock);
  stream.pool().ParallelFor(size / block, 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) Butterflies(data + b * block, block, 1, block);
  });
  for (int64_t stride = block; stride < size; stride *= 2) {
    stream.pool().ParallelFor(stride, 4096,
                              [&](int64_t begin, int64_t end) { LongButterflies(data, size, stride, begin, end); });
  }
  const auto scale = static_cast<float>(1 / std::sqrt(static_cast<double>(size)));
  stream.pool().ParallelFor(size, 1 << 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) data[i] *= scale;
  });
}

std::vector<uint32_t> RandomSubset(const PhiloxKey& key, int64_t population, int64_t count) {
  TY_CHECK_LE(count, population);
  std::vector<uint32_t> chosen(static_cast<size_t>(count));
  if (count == population) {
    std::iota(chosen.begin(), chosen.end(), 0u);
    return chosen;
  }
  // Number population - count + i, or an earlier one drawn at random.
  std::vector<bool> taken(static_cast<size_t>(population));
  for (int64_t i = 0; i < count; ++i) {
    const auto last = static_cast<uint64_t>(population - count + i);
    const std::array<uint32_t, 4> words = RandomBlock(key, static_cast<uint32_t>(i));
    const uint64_t wide = (uint64_t{words[0]} << 32) | words[1];
    const auto drawn = static_cast<uint64_t>((static_cast<unsigned __int128>(wide) * (last + 1)) >> 64);
    const uint64_t number = taken[drawn] ? last : drawn;
    taken[number] = true;
    chosen[static_cast<size_t>(i)] = static_cast<uint32_t>(number);
  }
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

RandomProjection::RandomProjection(Kind kind, int64_t length, int64_t outputs, uint64_t seed)
    : kind_(kind), length_(length), seed_(seed) {
  TY_CHECK_GE(length, 1);
  TY_CHECK_LE(length, int64_t{1} << 32);
  TY_CHECK_GE(outputs, 1);
  padded_ = static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(length)));
  outputs_ = kind == Kind::kRademacher ? outputs : kind == Kind::kNone ? length : std::min(outputs, padded_);
  if (kind != Kind::kHadamard) return;
  rows_ = RandomSubset({.seed = seed, .purpose = kRandomProjectorRow}, padded_, outputs_);
}

void RandomProjection::Apply(const float* x, float* scratch, float* out, Stream& stream) const {
  const PhiloxKey key{.seed = seed_, .purpose = kRandomProjectorSign};
  if (kind_ == Kind::kNone) {
    std::copy_n(x, length_, out);
    return;
  }
  if (kind_ == Kind::kRademacher) {
    const double scale = 1 / std::sqrt(static_cast<double>(outputs_));
    const int64_t words = (length_ + 31) / 32;
    stream.pool().ParallelFor(outputs_, 1, [&](int64_t begin, int64_t end) {
      for (int64_t j = begin; j < end; ++j) {
        out[j] = static_cast<float>(scale * SignedSum(key, static_cast<uint64_t>(j), words, x, length_));
      }
    });
    return;
  }
  stream.pool().ParallelFor(length_, 1 << 14,
                            [&](int64_t begin, int64_t end) { FlipSigns(key, x, scratch, begin, end); });
  std::fill(scratch + length_, scratch + padded_, 0.0f);
  WalshHadamard(scratch, padded_, stream);
  const auto scale = static_cast<float>(std::sqrt(static_cast<double>(padded_) / static_cast<double>(outputs_)));
  for (int64_t j = 0; j < outputs_; ++j) out[j] = scale * scratch[rows_[static_cast<size_t>(j)]];
}

}  // namespace trainyard::kernels
