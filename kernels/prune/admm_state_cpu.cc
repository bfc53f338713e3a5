#include <algorithm>
#include <atomic>

#include "kernels/codec/bit_packing.h"
#include "kernels/prune/admm_state_internal.h"

namespace trainyard::kernels::internal {
namespace {

void LoadMask(const TensorView& mask, int64_t begin, int64_t count, uint8_t* kept) {
  UnpackCodes(mask.as<uint8_t>() + begin / 8, count, 1, kept);
}

TY_SIMD void AddDual(const float* x, const float* u, int64_t count, float factor, float* w) {
  for (int64_t i = 0; i < count; ++i) w[i] = PointWithDual(x[i], factor, u[i]);
}

// u out of s: -s where pruned, 0 where kept.
TY_SIMD void DualOfMerged(const float* s, const uint8_t* kept, int64_t count, float* u) {
  for (int64_t i = 0; i < count; ++i) u[i] = kept[i] != 0 ? 0.0f : -s[i];
}

TY_SIMD void Divide(const float* w, const uint8_t* kept, int64_t count, float* z, float* u) {
  for (int64_t i = 0; i < count; ++i) {
    z[i] = kept[i] != 0 ? w[i] : 0.0f;
    u[i] = kept[i] != 0 ? 0.0f : w[i];
  }
}

TY_SIMD void Merge(const float* z, const float* u, int64_t count, float* s) {
  for (int64_t i = 0; i < count; ++i) s[i] = z[i] - u[i];
}

TY_SIMD float LargestMagnitude(const float* x, int64_t count) {
  float largest = 0.0f;
  for (int64_t i = 0; i < count; ++i) {
    const float magnitude = x[i] < 0.0f ? -x[i] : x[i];
    largest = magnitude > largest ? magnitude : largest;
  }
  return largest;
}

void RaiseTo(float value, std::atomic<float>* largest) {
  float seen = largest->load(std::memory_order_relaxed);
  while (seen < value && !largest->compare_exchange_weak(seen, value, std::memory_order_relaxed)) {
  }
}

// z and u of one block, u 0 if there is none; merged into z if there is no room for u.
struct Block {
  alignas(64) float z[kPruneBlock];
  alignas(64) float u[kPruneBlock];

  void Make(const AdmmProjectArgs& args, int64_t begin, int64_t count) {
    alignas(64) uint8_t kept[kPruneBlock];
    LoadMask(args.mask, begin, count, kept);
    Divide(args.w.as<float>() + begin, kept, count, z, u);
    if (!args.has_dual) std::fill_n(u, count, 0.0f);
    if (!args.u) Merge(z, u, count, z);
  }
};

void SetScales(const AdmmProjectArgs& args, Stream& stream) {
  if (!args.z.scale && !args.u.scale) return;
  std::atomic<float> largest_z{0.0f}, largest_u{0.0f};
  stream.pool().ParallelFor(args.w.size(), kPruneGrain, [&](int64_t range_begin, int64_t range_end) {
    Block block;
    for (int64_t begin = range_begin; begin < range_end; begin += kPruneBlock) {
      const int64_t count = std::min(kPruneBlock, range_end - begin);
      block.Make(args, begin, count);
      RaiseTo(LargestMagnitude(block.z, count), &largest_z);
      RaiseTo(LargestMagnitude(block.u, count), &largest_u);
    }
  });
  if (args.z.scale) *args.z.scale.as<float>() = StoredScale(args.z.values.dtype(), largest_z.load());
  if (args.u.scale) *args.u.scale.as<float>() = StoredScale(args.u.values.dtype(), largest_u.load());
}

TY_SIMD void AddSquares(const float* x, const float* z, int64_t count, double* gap_lanes, double* x_lanes) {
  const int64_t whole = count / kLanes * kLanes;
  for (int64_t i = 0; i < whole; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const double value = static_cast<double>(x[i + lane]);
      const double gap = value - static_cast<double>(z[i + lane]);
      gap_lanes[lane] += gap * gap;
      x_lanes[lane] += value * value;
    }
  }
  for (int64_t i = whole; i < count; ++i) {
    const double value = static_cast<double>(x[i]);
    const double gap = value - static_cast<double>(z[i]);
    gap_lanes[i - whole] += gap * gap;
    x_lanes[i - whole] += value * value;
  }
}

ResidualSums SumsOf(const AdmmResidualArgs& args, int64_t sum_begin) {
  double gap_lanes[kLanes] = {}, x_lanes[kLanes] = {};
  alignas(64) float x_buffer[kPruneBlock];
  alignas(64) float z[kPruneBlock];
  alignas(64) float u[kPruneBlock];
  alignas(64) uint8_t kept[kPruneBlock];
  const int64_t sum_end = std::min(sum_begin + kResidualBlock, args.w.size());
  for (int64_t begin = sum_begin; begin < sum_end; begin += kPruneBlock) {
    const int64_t count = std::min(kPruneBlock, sum_end - begin);
    LoadMask(args.mask, begin, count, kept);
    Divide(args.w.as<float>() + begin, kept, count, z, u);
    AddSquares(LoadStored({args.x}, begin, count, x_buffer), z, count, gap_lanes, x_lanes);
  }
  ResidualSums sums;
  for (int lane = 0; lane < kLanes; ++lane) {
    sums.gap += gap_lanes[lane];
    sums.x += x_lanes[lane];
  }
  return sums;
}

}  // namespace

void AdmmPointCpu(const AdmmPointArgs& args, Stream& stream) {
  stream.pool().ParallelFor(args.w.size(), kPruneGrain, [&](int64_t range_begin, int64_t range_end) {
    alignas(64) float buffers[3][kPruneBlock];
    alignas(64) uint8_t kept[kPruneBlock];
    for (int64_t begin = range_begin; begin < range_end; begin += kPruneBlock) {
      const int64_t count = std::min(kPruneBlock, range_end - begin);
      const float* const x = LoadStored({args.x}, begin, count, buffers[0]);
      const float* u = LoadStored(args.dual, begin, count, buffers[1]);
      if (args.mask) {
        LoadMask(args.mask, begin, count, kept);
        DualOfMerged(u, kept, count, buffers[2]);
        u = buffers[2];
      }
      AddDual(x, u, count, args.dual_factor, args.w.as<float>() + begin);
    }
  });
}

void AdmmProjectCpu(const AdmmProjectArgs& args, Stream& stream) {
  SetScales(args, stream);
  stream.pool().ParallelFor(args.w.size(), kPruneGrain, [&](int64_t range_begin, int64_t range_end) {
    Block block;
    for (int64_t begin = range_begin; begin < range_end; begin += kPruneBlock) {
      const int64_t count = std::min(kPruneBlock, range_end - begin);
      block.Make(args, begin, count);
      StoreStored(block.z, begin, count, args.z);
      if (args.u) StoreStored(block.u, begin, count, args.u);
    }
  });
}

void AdmmResidualCpu(const AdmmResidualArgs& args, Stream& stream) {
  ResidualSums* const partials = static_cast<ResidualSums*>(args.workspace.data());
  const int64_t blocks = ResidualBlocks(args.w.size());
  stream.pool().ParallelFor(blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) partials[i] = SumsOf(args, i * kResidualBlock);
  });
  ResidualSums total;
  for (int64_t i = 0; i < blocks; ++i) {
    total.gap += partials[i].gap;
    total.x += partials[i].x;
  }
  args.sums.as<float>()[0] = static_cast<float>(total.gap);
  args.sums.as<float>()[1] = static_cast<float>(total.x);
}

}  // namespace trainyard::kernels::internal
