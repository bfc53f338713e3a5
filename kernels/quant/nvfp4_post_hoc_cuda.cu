#include "kernels/core/block_reduce.h"
#include "kernels/quant/group_tile.h"
#include "kernels/quant/nvfp4_group.h"
#include "kernels/quant/nvfp4_post_hoc_formula.h"
#include "kernels/quant/nvfp4_post_hoc_internal.h"

namespace trainyard::kernels::internal {
namespace {

// The tensor's scale is, from the start to the end of the first pass, an integer: the bits of the largest pseudo scale.
struct Job {
  Floats x;
  float eden_clip;
  PhiloxKey random;
  int64_t size;
  BFloat16* pseudo;
  float* tensor_scale;
  uint8_t* packed;  // null: not there, as the others
  Float8E4M3* scales;
  Floats values;
};

__global__ void BeginKernel(Job job) {
  *reinterpret_cast<uint32_t*>(job.tensor_scale) = 0;
}

__global__ void FinishScaleKernel(Job job) {
  *job.tensor_scale = NvPostHocTensorScale(*reinterpret_cast<const uint32_t*>(job.tensor_scale));
}

// Codes and pseudo scales; `values` gets bare levels.
__global__ void FirstPassKernel(Job job) {
  __shared__ float tile[kTileFloats<kNvGroup>];
  constexpr int64_t kTileElements = kTileGroups * kNvGroup;
  uint32_t largest = 0;
  for (int64_t begin = blockIdx.x * kTileElements; begin < job.size; begin += gridDim.x * kTileElements) {
    const auto place = [&](int group) {
      const int64_t at = begin + group * kNvGroup;
      return at < job.size ? at : int64_t{-1};
    };
    LoadTile<kNvGroup>(job.x, place, tile);
    float* const row = TileRow<kNvGroup>(tile);
    if (const int64_t first = begin + threadIdx.x * kNvGroup; first < job.size) {
      float x[kNvGroup], u[kNvGroup], levels[kNvGroup];
      TY_UNROLL
      for (int i = 0; i < kNvGroup; ++i) x[i] = row[i];
      const float step = NvPostHocStep(NvGroupLargest(x), job.eden_clip);
      NvInUnits(x, 1.0f / step, u);
      NvNearestLevels(u, levels);
      if (job.packed != nullptr) NvStorePacked(levels, job.packed + first / 2);
      const BFloat16 pseudo = NvPseudoScale(step, NvGroupDot(u, u), NvGroupDot(u, levels));
      job.pseudo[first / kNvGroup] = pseudo;
      const uint32_t magnitude = pseudo.bits & 0x7FFF;
      largest = magnitude > largest ? magnitude : largest;
      TY_UNROLL
      for (int i = 0; i < kNvGroup; ++i) row[i] = levels[i];
    }
    if (job.values.data != nullptr) StoreTile<kNvGroup>(tile, place, job.values);
    __syncthreads();
  }
  largest = BlockReduce<kTileGroups>(largest, Max());
  if (threadIdx.x == 0) atomicMax(reinterpret_cast<uint32_t*>(job.tensor_scale), largest);
}

// Scales, and with them values; half a group a thread.
__global__ void SecondPassKernel(Job job) {
  constexpr int kHalf = kNvGroup / 2;
  const float tensor_scale = *job.tensor_scale;
  for (int64_t first = GlobalThread() * kHalf; first < job.size; first += GlobalThreads() * kHalf) {
    const int64_t group = first / kNvGroup;
    const Float8E4M3 scale =
        NvAlignedScale(job.pseudo[group], tensor_scale, RandomWord(job.random, static_cast<uint64_t>(group)));
    if (job.scales != nullptr && first % kNvGroup == 0) job.scales[group] = scale;
    if (job.values.data == nullptr) continue;
    const float factor = WidenToFloat(scale);
    float values[kHalf];
    Load<kHalf>(job.values, first, kHalf, values);
    TY_UNROLL
    for (int i = 0; i < kHalf; ++i) values[i] *= factor;
    Store<kHalf>(values, job.values, first, kHalf);
  }
}

}  // namespace

void NvPostHocQuantizeCuda(const NvPostHocArgs& args, Stream& stream) {
  const int64_t size = args.x.size();
  const Job job = {.x = args.x,
                   .eden_clip = args.eden_clip,
                   .random = args.random,
                   .size = size,
                   .pseudo = args.pseudo_scales.as<BFloat16>(),
                   .tensor_scale = args.tensor_scale.as<float>(),
                   .packed = args.packed ? args.packed.as<uint8_t>() : nullptr,
                   .scales = args.scales ? args.scales.as<Float8E4M3>() : nullptr,
                   .values = args.values};
  Launch(stream, {.threads = 1}, BeginKernel, job);
  if (size > 0) {
    Launch(stream, TileGrid((size / kNvGroup + kTileGroups - 1) / kTileGroups), FirstPassKernel, job);
  }
  Launch(stream, {.threads = 1}, FinishScaleKernel, job);
  if (size > 0 && (job.scales != nullptr || job.values.data != nullptr)) {
    Launch(stream, ElementwiseGrid(size, kNvGroup / 2), SecondPassKernel, job);
  }
}

}  // namespace trainyard::kernels::internal
