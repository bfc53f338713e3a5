#include "kernels/prune/admm_state_internal.h"
#include "kernels/prune/stored_quads.h"

namespace trainyard::kernels::internal {
namespace {

constexpr int kThreads = 256, kFinishThreads = 1024;

__global__ void AdmmPointKernel(QuadArray x, StoredQuads dual, const uint8_t* mask, float dual_factor, int64_t size,
                                bool is_aligned, float* w) {
  ForQuads(size, is_aligned, [&](const QuadPlace& place) {
    const RawQuad raw_x = LoadQuad(x, place), raw_dual = LoadQuad(dual.values, place);
    Quad point = DecodeQuad(x.dtype, raw_x), u = DecodeStored(dual, raw_dual);
    if (mask != nullptr) {  // out of s: -s where pruned, 0 where kept
      const uint32_t kept = MaskOfQuad(mask, place);
      for (int j = 0; j < 4; ++j) u.x[j] = (kept >> j & 1) != 0 ? 0.0f : -u.x[j];
    }
    for (int j = 0; j < 4; ++j) point.x[j] = PointWithDual(point.x[j], dual_factor, u.x[j]);
    StoreFloats(point, place, w);
  });
}

struct ProjectTask {
  const float* w;
  const uint8_t* mask;
  bool has_dual, is_merged, is_aligned;
  int64_t size;
};

// z and u of one quad, u 0 if there is none; merged into z if there is no room for u.
struct ProjectedQuad {
  Quad z, u;

  __device__ ProjectedQuad(const ProjectTask& task, const QuadPlace& place) {
    const Quad w = LoadFloats(task.w, place);
    const uint32_t kept = MaskOfQuad(task.mask, place);
    for (int j = 0; j < 4; ++j) {
      const bool is_kept = (kept >> j & 1) != 0;
      z.x[j] = is_kept ? w.x[j] : 0.0f;
      u.x[j] = is_kept || !task.has_dual ? 0.0f : w.x[j];
      if (task.is_merged) z.x[j] -= u.x[j];
    }
  }
};

__global__ void ClearScalesKernel(float* z_scale, float* u_scale) {
  if (z_scale != nullptr) *z_scale = 0;
  if (u_scale != nullptr) *u_scale = 0;
}

// NaN does not count.
__device__ float LargestOf(const Quad& quad, float largest) {
  for (int j = 0; j < 4; ++j) {
    const float magnitude = quad.x[j] < 0.0f ? -quad.x[j] : quad.x[j];
    largest = magnitude > largest ? magnitude : largest;
  }
  return largest;
}

// Until it is made, a scale holds the largest magnitude: the bits of floats that are not negative are in their order.
__device__ void RaiseTo(float largest, float* scale) {
  if (scale != nullptr) atomicMax(reinterpret_cast<unsigned*>(scale), __float_as_uint(largest));
}

__global__ void LargestKernel(ProjectTask task, float* z_scale, float* u_scale) {
  float z = 0, u = 0;
  ForQuads(task.size, task.is_aligned, [&](const QuadPlace& place) {
    const ProjectedQuad quad(task, place);
    z = LargestOf(quad.z, z);
    u = LargestOf(quad.u, u);
  });
  z = BlockReduce<kThreads>(z, Max());
  u = BlockReduce<kThreads>(u, Max());
  if (threadIdx.x != 0) return;
  RaiseTo(z, z_scale);
  RaiseTo(u, u_scale);
}

__global__ void MakeScalesKernel(DType z_type, float* z_scale, DType u_type, float* u_scale) {
  if (z_scale != nullptr) *z_scale = StoredScale(z_type, *z_scale);
  if (u_scale != nullptr) *u_scale = StoredScale(u_type, *u_scale);
}

__global__ void AdmmProjectKernel(ProjectTask task, StoredQuads z, StoredQuads u) {
  ForQuads(task.size, task.is_aligned, [&](const QuadPlace& place) {
    const ProjectedQuad quad(task, place);
    StoreStored(quad.z, place, z);
    if (!task.is_merged) StoreStored(quad.u, place, u);
  });
}

// A partial sum a block of threads.
__global__ void PartialResidualKernel(QuadArray x, const float* w, const uint8_t* mask, int64_t size, int64_t blocks,
                                      bool is_aligned, ResidualSums* partials) {
  for (int64_t block = blockIdx.x; block < blocks; block += gridDim.x) {
    const int64_t begin = block * kResidualBlock;
    const int64_t end = begin + kResidualBlock < size ? begin + kResidualBlock : size;
    double gaps = 0, squares = 0;
    for (int64_t at = begin + int64_t{threadIdx.x} * 4; at < end; at += kThreads * 4) {
      const QuadPlace place(at, end, is_aligned);
      const RawQuad raw_x = LoadQuad(x, place);
      const Quad point = LoadFloats(w, place), values = DecodeQuad(x.dtype, raw_x);
      const uint32_t kept = MaskOfQuad(mask, place);
      for (int j = 0; j < 4; ++j) {
        const double value = static_cast<double>(values.x[j]);
        const double gap = value - static_cast<double>((kept >> j & 1) != 0 ? point.x[j] : 0.0f);
        gaps = fma(gap, gap, gaps);
        squares = fma(value, value, squares);
      }
    }
    gaps = BlockReduce<kThreads>(gaps, Sum());
    squares = BlockReduce<kThreads>(squares, Sum());
    if (threadIdx.x == 0) {
      partials[block].gap = gaps;
      partials[block].x = squares;
    }
  }
}

__global__ void FinishResidualKernel(const ResidualSums* partials, int64_t count, float* sums) {
  double gap = 0, x = 0;
  for (int64_t i = threadIdx.x; i < count; i += kFinishThreads) {
    gap += partials[i].gap;
    x += partials[i].x;
  }
  gap = BlockReduce<kFinishThreads>(gap, Sum());
  x = BlockReduce<kFinishThreads>(x, Sum());
  if (threadIdx.x != 0) return;
  sums[0] = static_cast<float>(gap);
  sums[1] = static_cast<float>(x);
}

}  // namespace

void AdmmPointCuda(const AdmmPointArgs& args, Stream& stream) {
  const int64_t size = args.w.size();
  if (size == 0) return;
  Launch(stream, ElementwiseGrid(size, 4), AdmmPointKernel, QuadArray(args.x), StoredQuads(args.dual),
         args.mask ? args.mask.as<uint8_t>() : nullptr, args.dual_factor, size,
         HasAlignedQuads({args.x, args.dual.values, args.w}), args.w.as<float>());
}

void AdmmProjectCuda(const AdmmProjectArgs& args, Stream& stream) {
  const int64_t size = args.w.size();
  const StoredQuads z(args.z), u(args.u);
  const ProjectTask task = {.w = args.w.as<float>(),
                            .mask = args.mask.as<uint8_t>(),
                            .has_dual = args.has_dual,
                            .is_merged = !args.u,
                            .is_aligned = HasAlignedQuads({args.w, args.z.values, args.u.values}),
                            .size = size};
  if (z.scale != nullptr || u.scale != nullptr) {
    Launch(stream, {.threads = 1}, ClearScalesKernel, z.scale, u.scale);
    if (size > 0) Launch(stream, ElementwiseGrid(size, 4), LargestKernel, task, z.scale, u.scale);
    Launch(stream, {.threads = 1}, MakeScalesKernel, z.values.dtype, z.scale, u.values.dtype, u.scale);
  }
  if (size > 0) Launch(stream, ElementwiseGrid(size, 4), AdmmProjectKernel, task, z, u);
}

void AdmmResidualCuda(const AdmmResidualArgs& args, Stream& stream) {
  const int64_t size = args.w.size(), blocks = ResidualBlocks(size);
  ResidualSums* const partials = static_cast<ResidualSums*>(args.workspace.data());
  if (blocks > 0) {
    Launch(stream, RowGrid(blocks, kThreads), PartialResidualKernel, QuadArray(args.x), args.w.as<float>(),
           args.mask.as<uint8_t>(), size, blocks, HasAlignedQuads({args.x, args.w}), partials);
  }
  Launch(stream, {.threads = kFinishThreads}, FinishResidualKernel, partials, blocks, args.sums.as<float>());
}

}  // namespace trainyard::kernels::internal
