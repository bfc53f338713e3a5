#include "kernels/prune/mask.h"
#include "kernels/prune/stored_quads.h"

namespace trainyard::kernels::internal {
namespace {

constexpr int kThreads = 256;

__global__ void MaskApplyKernel(QuadArray x, const uint8_t* mask, int64_t size, bool is_aligned) {
  ForQuads(size, is_aligned, [&](const QuadPlace& place) {
    const uint32_t kept = MaskOfQuad(mask, place);
    RawQuad raw = LoadQuad(x, place);
    if (x.dtype == DType::kF32) {
      for (int j = 0; j < 4; ++j) raw.word[j] = (kept >> j & 1) != 0 ? raw.word[j] : 0u;
      StoreWords(raw, place, x.data);
    } else {
      for (int j = 0; j < 4; ++j) {
        if ((kept >> j & 1) == 0) raw.word[j / 2] &= j % 2 == 0 ? 0xFFFF0000u : 0xFFFFu;
      }
      StoreHalves(raw, place, x.data);
    }
  });
}

__global__ void ClearCountsKernel(uint32_t* counts) {
  if (threadIdx.x < 3) counts[threadIdx.x] = 0;
}

struct MaskSums {
  uint32_t differing = 0, both = 0, either = 0;

  __device__ void Add(uint32_t a, uint32_t b) {
    differing += static_cast<uint32_t>(__popc(a ^ b));
    both += static_cast<uint32_t>(__popc(a & b));
    either += static_cast<uint32_t>(__popc(a | b));
  }
};

// Adds to the counts; `replaced`, if there, becomes b. 16 bytes a thread where all lie aligned.
__global__ void MaskCompareKernel(const uint8_t* a, const uint8_t* b, int64_t bytes, bool is_aligned, uint32_t* counts,
                                  uint8_t* replaced) {
  constexpr int64_t kStep = 16;
  const int64_t whole = is_aligned ? bytes / kStep : 0;
  MaskSums sums;
  for (int64_t i = GlobalThread(); i < whole; i += GlobalThreads()) {
    const Vec<uint32_t, 4> left = LoadVec<4>(reinterpret_cast<const uint32_t*>(a) + i * 4);
    const Vec<uint32_t, 4> right = LoadVec<4>(reinterpret_cast<const uint32_t*>(b) + i * 4);
    for (int j = 0; j < 4; ++j) sums.Add(left[j], right[j]);
    if (replaced != nullptr) StoreVec(reinterpret_cast<uint32_t*>(replaced) + i * 4, right);
  }
  for (int64_t i = whole * kStep + GlobalThread(); i < bytes; i += GlobalThreads()) {
    sums.Add(a[i], b[i]);
    if (replaced != nullptr) replaced[i] = b[i];
  }
  sums.differing = BlockReduce<kThreads>(sums.differing, Sum());
  sums.both = BlockReduce<kThreads>(sums.both, Sum());
  sums.either = BlockReduce<kThreads>(sums.either, Sum());
  if (threadIdx.x != 0) return;
  atomicAdd(&counts[0], sums.differing);
  atomicAdd(&counts[1], sums.both);
  atomicAdd(&counts[2], sums.either);
}

void Compare(const TensorView& a, const TensorView& b, const TensorView& counts, uint8_t* replaced, Stream& stream) {
  Launch(stream, {.threads = 32}, ClearCountsKernel, counts.as<uint32_t>());
  if (a.size() == 0) return;
  const uint8_t* const left = a.as<uint8_t>();
  const uint8_t* const right = b.as<uint8_t>();
  Launch(stream, ElementwiseGrid(a.size(), 16), MaskCompareKernel, left, right, a.size(), AllVecAligned(left, right),
         counts.as<uint32_t>(), replaced);
}

}  // namespace

void MaskApplyCuda(const MaskApplyArgs& args, Stream& stream) {
  if (args.x.size() == 0) return;
  Launch(stream, ElementwiseGrid(args.x.size(), 4), MaskApplyKernel, QuadArray(args.x), args.mask.as<uint8_t>(),
         args.x.size(), HasAlignedQuads({args.x}));
}

void MaskCompareCuda(const MaskCompareArgs& args, Stream& stream) {
  Compare(args.a, args.b, args.counts, nullptr, stream);
}

void MaskReplaceCuda(const MaskReplaceArgs& args, Stream& stream) {
  Compare(args.mask, args.next, args.counts, args.mask.as<uint8_t>(), stream);
}

}  // namespace trainyard::kernels::internal
