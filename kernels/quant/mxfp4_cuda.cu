#include "kernels/quant/group_tile.h"
#include "kernels/quant/mxfp4_formula.h"
#include "kernels/quant/mxfp4_internal.h"

namespace trainyard::kernels::internal {
namespace {

struct Job {
  Floats v;
  MxFormat format;
  PhiloxKey random;
  int64_t size;
  uint8_t *packed, *scales, *mask;  // null: not there
  Floats values;
};

__device__ inline void StoreMask(const float* u, uint8_t* mask) {
  uint8_t bytes[kMxGroup / 8];
  TY_UNROLL
  for (int b = 0; b < kMxGroup / 8; ++b) {
    uint32_t bits = 0;
    TY_UNROLL
    for (int i = 0; i < 8; ++i) bits |= (__builtin_fabsf(u[8 * b + i]) < kE2M1Largest ? 1u : 0u) << i;
    bytes[b] = static_cast<uint8_t>(bits);
  }
  StoreChunk<kMxGroup / 8>(bytes, kMxGroup / 8, mask);
}

__device__ inline void StorePacked(const float* levels, uint8_t* packed) {
  uint8_t bytes[kMxGroup / 2];
  TY_UNROLL
  for (int i = 0; i < kMxGroup / 2; ++i) {
    bytes[i] = static_cast<uint8_t>(E2M1Code(levels[2 * i]) | E2M1Code(levels[2 * i + 1]) << 4);
  }
  StoreChunk<kMxGroup / 2>(bytes, kMxGroup / 2, packed);
}

// The group of elements from `first` on: v becomes its levels. Returns the scale's code.
__device__ inline uint32_t Quantize(const Job& job, int64_t first, float* v) {
  const uint32_t scale = MxScaleCode(v, job.format);
  const float inverse = E8M0Inverse(scale);
  const float range = job.format.Range();
  TY_UNROLL
  for (int i = 0; i < kMxGroup; ++i) v[i] = v[i] * inverse * range;
  if (job.mask != nullptr) StoreMask(v, job.mask + first / 8);
  if (job.format.rounding == Rounding::kNearestEven) {
    TY_UNROLL
    for (int i = 0; i < kMxGroup; ++i) v[i] = E2M1Level(v[i]);
  } else {
    TY_UNROLL
    for (int part = 0; part < kMxGroup; part += 4) {
      uint32_t words[4];
      FourWords(job.random, first + part, words);
      TY_UNROLL
      for (int i = 0; i < 4; ++i) v[part + i] = E2M1Level(v[part + i], words[i]);
    }
  }
  if (job.scales != nullptr) job.scales[first / kMxGroup] = static_cast<uint8_t>(scale);
  if (job.packed != nullptr) StorePacked(v, job.packed + first / 2);
  return scale;
}

__global__ void QuantizeKernel(Job job) {
  __shared__ float tile[kTileFloats<kMxGroup>];
  constexpr int64_t kTileElements = kTileGroups * kMxGroup;
  for (int64_t begin = blockIdx.x * kTileElements; begin < job.size; begin += gridDim.x * kTileElements) {
    const auto place = [&](int group) {
      const int64_t at = begin + group * kMxGroup;
      return at < job.size ? at : int64_t{-1};
    };
    LoadTile<kMxGroup>(job.v, place, tile);
    float* const row = TileRow<kMxGroup>(tile);
    if (const int64_t first = begin + threadIdx.x * kMxGroup; first < job.size) {
      float v[kMxGroup];
      TY_UNROLL
      for (int i = 0; i < kMxGroup; ++i) v[i] = row[i];
      const float scale = E8M0Value(Quantize(job, first, v));
      TY_UNROLL
      for (int i = 0; i < kMxGroup; ++i) row[i] = v[i] * scale;
    }
    if (job.values.data != nullptr) StoreTile<kMxGroup>(tile, place, job.values);
    __syncthreads();
  }
}

}  // namespace

void MxQuantizeCuda(const MxQuantizeArgs& args, Stream& stream) {
  const int64_t size = args.v.size();
  if (size == 0) return;
  const auto bytes = [](const TensorView& view) { return view ? view.as<uint8_t>() : nullptr; };
  const Job job = {.v = args.v,
                   .format = args.format,
                   .random = args.random,
                   .size = size,
                   .packed = bytes(args.packed),
                   .scales = bytes(args.scales),
                   .mask = bytes(args.mask),
                   .values = args.values};
  Launch(stream, TileGrid((size / kMxGroup + kTileGroups - 1) / kTileGroups), QuantizeKernel, job);
}

}  // namespace trainyard::kernels::internal
