#include <algorithm>

#include "kernels/core/block_reduce.h"
#include "kernels/core/launch.h"
#include "kernels/transform/eight.h"
#include "kernels/transform/hadamard_device.h"
#include "kernels/transform/random_projection_internal.h"

namespace trainyard::kernels::internal {
namespace {

constexpr unsigned kAllLanes = 0xFFFFFFFFu;

// A warp takes 4096 elements: each lane draws the signs of 128 of them, and hands them round.
__global__ void FlipSignsKernel(ProjectionArgs args) {
  constexpr int kLaneItems = 4;
  constexpr int kRunItems = 32 * kLaneItems;  // one block of random words
  constexpr int64_t kWarpItems = 32 * kRunItems;
  const int lane = threadIdx.x % 32;
  const int64_t warps = GlobalThreads() / 32;
  for (int64_t w = GlobalThread() / 32; w * kWarpItems < args.padded; w += warps) {
    const std::array<uint32_t, 4> words = RandomBlock(args.key, static_cast<uint32_t>(w * 32 + lane));
    for (int run = 0; run < 32 && w * kWarpItems + run * kRunItems < args.padded; ++run) {
      uint32_t word = 0;
      for (int i = 0; i < 4; ++i) {
        const uint32_t other = __shfl_sync(kAllLanes, words[static_cast<size_t>(i)], run);
        if (lane * kLaneItems / 32 == i) word = other;
      }
      word >>= lane * kLaneItems % 32;
      const int64_t at = w * kWarpItems + run * kRunItems + lane * kLaneItems;
      for (int i = 0; i < kLaneItems; ++i, word >>= 1) {
        if (at + i >= args.padded) break;
        const float value = at + i < args.length ? args.x[at + i] : 0.0f;
        args.scratch[at + i] = at + i < args.length && (word & 1) != 0 ? -value : value;
      }
    }
  }
}

constexpr int kBlockGroup = 4096;  // elements that a block transforms in one pass over them

// Distances 1 .. group / 2 of every `group` elements, a block for each; group is 8 .. kBlockGroup.
__global__ void ShortButterfliesKernel(float* data, int64_t size, int group, float scale, bool is_aligned) {
  float* shared = SharedMemory<float>();
  for (int64_t first = int64_t{blockIdx.x} * group; first < size; first += int64_t{gridDim.x} * group) {
    const int at = static_cast<int>(threadIdx.x) * kHadamardItems;
    float v[kHadamardItems] = {};
    if (at < group) LoadEight(data + first + at, is_aligned, v);
    HadamardInBlock(group, shared, v);
    TY_UNROLL
    for (int i = 0; i < kHadamardItems; ++i) v[i] *= scale;
    if (at < group) StoreEight(v, is_aligned, data + first + at);
  }
}

// Distances stride, 2 stride, .. , kBits of them; a thread holds all elements that meet.
template <int kBits>
__global__ void LongButterfliesKernel(float* data, int64_t size, int64_t stride, float scale) {
  constexpr int kItems = 1 << kBits;
  for (int64_t t = GlobalThread(); t < size / kItems; t += GlobalThreads()) {
    const int64_t within = t & (stride - 1);
    float* const at = data + (t - within) * kItems + within;
    float v[kItems];
    TY_UNROLL
    for (int i = 0; i < kItems; ++i) v[i] = at[i * stride];
    TY_UNROLL
    for (int bit = 0; bit < kBits; ++bit) {
      TY_UNROLL
      for (int i = 0; i < kItems; ++i) {
        if (((i >> bit) & 1) != 0) continue;
        const float a = v[i];
        const float b = v[i + (1 << bit)];
        v[i] = a + b;
        v[i + (1 << bit)] = a - b;
      }
    }
    TY_UNROLL
    for (int i = 0; i < kItems; ++i) at[i * stride] = v[i] * scale;
  }
}

__global__ void TakeRowsKernel(ProjectionArgs args, float scale) {
  for (int64_t j = GlobalThread(); j < args.outputs; j += GlobalThreads()) {
    args.out[j] = scale * args.scratch[args.rows[j]];
  }
}

__global__ void CopyKernel(const float* x, int64_t count, float* out) {
  for (int64_t i = GlobalThread(); i < count; i += GlobalThreads()) out[i] = x[i];
}

// A block an output. A warp takes 1024 elements at a time, of which a lane sums 32 in f32; the rest is f64.
template <int kThreads>
__global__ void RademacherKernel(ProjectionArgs args, int64_t words, double scale) {
  const int lane = threadIdx.x % 32;
  for (int64_t j = blockIdx.x; j < args.outputs; j += gridDim.x) {
    double total = 0;
    for (int64_t first = threadIdx.x / 32 * 32; first < words; first += kThreads) {
      const uint32_t mine = RandomWord(args.key, static_cast<uint64_t>(j * words + first + lane));
      float sum = 0;
      for (int k = 0; k < 32; ++k) {
        const uint32_t word = __shfl_sync(kAllLanes, mine, k);
        const int64_t i = (first + k) * 32 + lane;
        if (i < args.length) sum += ((word >> lane) & 1) != 0 ? -args.x[i] : args.x[i];
      }
      total += static_cast<double>(sum);
    }
    total = BlockReduce<kThreads>(total, Sum());
    if (threadIdx.x == 0) args.out[j] = static_cast<float>(scale * total);
  }
}

template <int kBits>
void LaunchLongButterflies(float* data, int64_t size, int64_t stride, float scale, Stream& stream) {
  Launch(stream, ElementwiseGrid(size >> kBits), LongButterfliesKernel<kBits>, data, size, stride, scale);
}

}  // namespace

void WalshHadamardCuda(float* data, int64_t size, Stream& stream) {
  const float scale = HadamardScale(size);
  int64_t stride = 1;
  if (size >= kHadamardItems) {
    const int group = static_cast<int>(std::min<int64_t>(size, kBlockGroup));
    Grid grid = RowGrid(size / group, std::max(group / kHadamardItems, 32));
    if (group > kHadamardWarpGroup) grid.shared_bytes = group * static_cast<int64_t>(sizeof(float));
    Launch(stream, grid, ShortButterfliesKernel, data, size, group, size == group ? scale : 1.0f, AllVecAligned(data));
    stride = group;
  }
  while (stride < size) {
    const int64_t left = size / stride;
    const int bits = left >= 16 ? 4 : left == 8 ? 3 : left == 4 ? 2 : 1;
    const float last_scale = left == int64_t{1} << bits ? scale : 1.0f;
    if (bits == 4) LaunchLongButterflies<4>(data, size, stride, last_scale, stream);
    if (bits == 3) LaunchLongButterflies<3>(data, size, stride, last_scale, stream);
    if (bits == 2) LaunchLongButterflies<2>(data, size, stride, last_scale, stream);
    if (bits == 1) LaunchLongButterflies<1>(data, size, stride, last_scale, stream);
    stride <<= bits;
  }
}

void ProjectCuda(const ProjectionArgs& args, Stream& stream) {
  switch (args.kind) {
    case RandomProjection::Kind::kNone:
      return Launch(stream, ElementwiseGrid(args.length), CopyKernel, args.x, args.length, args.out);
    case RandomProjection::Kind::kRademacher: {
      constexpr int kThreads = 256;
      const bool is_short = args.words_a_row() <= 32;  // work for one warp
      Launch(stream, RowGrid(args.outputs, is_short ? 32 : kThreads),
             is_short ? RademacherKernel<32> : RademacherKernel<kThreads>, args, args.words_a_row(),
             args.rademacher_scale());
      return;
    }
    case RandomProjection::Kind::kHadamard:
      Launch(stream, ElementwiseGrid(args.padded, 128), FlipSignsKernel, args);
      WalshHadamardCuda(args.scratch, args.padded, stream);
      Launch(stream, ElementwiseGrid(args.outputs), TakeRowsKernel, args, args.hadamard_scale());
      return;
  }
}

}  // namespace trainyard::kernels::internal
