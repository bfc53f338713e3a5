#include "kernels/core/dispatch.h"
#include "kernels/core/launch.h"
#include "kernels/transform/eight.h"
#include "kernels/transform/hadamard_device.h"
#include "kernels/transform/hadamard_internal.h"

namespace trainyard::kernels::internal {
namespace {

static_assert(kEight == kHadamardItems);

constexpr int kThreads = 256;

struct Rotation {
  int64_t count = 0;  // elements
  int group = 0;
  float scale = 1;
  const uint8_t* mask = nullptr;
  const float* signs = nullptr;
  int64_t period = 1;
  bool inverse = false;
  bool is_aligned = false, signs_are_aligned = false;
};

__device__ inline void TimesSigns(const Rotation& rotation, int64_t at, float (&v)[kEight]) {
  float signs[kEight];
  LoadEight(rotation.signs + at % rotation.period, rotation.signs_are_aligned, signs);
  TY_UNROLL
  for (int i = 0; i < kEight; ++i) v[i] *= signs[i];
}

// x may be y: a thread writes what it alone has read.
template <typename X, typename Y>
__global__ void HadamardKernel(const X* x, Y* y, Rotation rotation) {
  float* shared = SharedMemory<float>();
  const int64_t block_items = int64_t{blockDim.x} * kEight;
  for (int64_t first = blockIdx.x * block_items; first < rotation.count; first += gridDim.x * block_items) {
    const int64_t at = first + int64_t{threadIdx.x} * kEight;
    const bool is_there = at < rotation.count;  // whole groups are
    float v[kEight] = {};
    if (is_there) {
      LoadEight(x + at, rotation.is_aligned, v);
      if (rotation.mask != nullptr) {
        const unsigned kept = rotation.mask[at / 8];
        TY_UNROLL
        for (int i = 0; i < kEight; ++i) v[i] = ((kept >> i) & 1u) != 0 ? v[i] : 0.0f;
      }
      if (rotation.signs != nullptr && !rotation.inverse) TimesSigns(rotation, at, v);
    }
    HadamardInBlock(rotation.group, shared, v);
    if (!is_there) continue;
    TY_UNROLL
    for (int i = 0; i < kEight; ++i) v[i] *= rotation.scale;
    if (rotation.signs != nullptr && rotation.inverse) TimesSigns(rotation, at, v);
    StoreEight(v, rotation.is_aligned, y + at);
  }
}

// Four signs a block of words.
__global__ void RandomSignsKernel(float* signs, int64_t count, PhiloxKey key) {
  for (int64_t block = GlobalThread(); block * 4 < count; block += GlobalThreads()) {
    const std::array<uint32_t, 4> words = RandomBlock(key, static_cast<uint32_t>(block));
    for (int i = 0; i < 4; ++i) {
      if (block * 4 + i < count) signs[block * 4 + i] = (words[static_cast<size_t>(i)] >> 31) != 0 ? -1.0f : 1.0f;
    }
  }
}

}  // namespace

void HadamardCuda(const HadamardArgs& args, Stream& stream) {
  if (args.x.size() == 0) return;
  Rotation rotation;
  rotation.count = args.x.size();
  rotation.group = static_cast<int>(args.group);
  rotation.scale = HadamardScale(args.group);
  rotation.inverse = args.inverse;
  rotation.is_aligned = AllVecAligned(args.x.data(), args.y.data());
  if (args.mask) rotation.mask = args.mask.as<uint8_t>();
  if (args.signs) {
    rotation.signs = args.signs.as<float>();
    rotation.period = args.signs.size();
    rotation.signs_are_aligned = AllVecAligned(rotation.signs);
  }
  const int threads = static_cast<int>(args.group) / kEight > kThreads ? rotation.group / kEight : kThreads;
  Grid grid = ElementwiseGrid(args.x.size(), int64_t{threads} * kEight / kThreads);
  grid.threads = threads;
  if (rotation.group > kHadamardWarpGroup) grid.shared_bytes = int64_t{threads} * kEight * 4;
  DispatchFloat(args.x.dtype(), [&](auto x_tag) {
    DispatchFloat(args.y.dtype(), [&](auto y_tag) {
      using X = typename decltype(x_tag)::type;
      using Y = typename decltype(y_tag)::type;
      Launch(stream, grid, HadamardKernel<X, Y>, args.x.as<X>(), args.y.as<Y>(), rotation);
    });
  });
}

void RandomSignsCuda(const RandomSignsArgs& args, Stream& stream) {
  const int64_t count = args.signs.size();
  if (count == 0) return;
  Launch(stream, ElementwiseGrid(count, 4), RandomSignsKernel, args.signs.as<float>(), count, args.random);
}

}  // namespace trainyard::kernels::internal
