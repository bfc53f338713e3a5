#include <algorithm>
#include <cmath>

#include "kernels/core/simd.h"
#include "kernels/transform/random_projection_internal.h"

namespace trainyard::kernels::internal {
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

void WalshHadamardCpu(float* data, int64_t size, Stream& stream) {
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

void ProjectCpu(const ProjectionArgs& args, Stream& stream) {
  switch (args.kind) {
    case RandomProjection::Kind::kNone:
      std::copy_n(args.x, args.length, args.out);
      return;
    case RandomProjection::Kind::kRademacher:
      stream.pool().ParallelFor(args.outputs, 1, [&](int64_t begin, int64_t end) {
        for (int64_t j = begin; j < end; ++j) {
          const double sum = SignedSum(args.key, static_cast<uint64_t>(j), args.words_a_row(), args.x, args.length);
          args.out[j] = static_cast<float>(args.rademacher_scale() * sum);
        }
      });
      return;
    case RandomProjection::Kind::kHadamard:
      stream.pool().ParallelFor(args.length, 1 << 14, [&](int64_t begin, int64_t end) {
        FlipSigns(args.key, args.x, args.scratch, begin, end);
      });
      std::fill(args.scratch + args.length, args.scratch + args.padded, 0.0f);
      WalshHadamardCpu(args.scratch, args.padded, stream);
      for (int64_t j = 0; j < args.outputs; ++j) args.out[j] = args.hadamard_scale() * args.scratch[args.rows[j]];
      return;
  }
}

}  // namespace trainyard::kernels::internal
