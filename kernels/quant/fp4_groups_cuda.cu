#include "kernels/core/launch.h"
#include "kernels/quant/chunk.h"
#include "kernels/quant/e2m1.h"
#include "kernels/quant/e8m0.h"
#include "kernels/quant/fp4_groups_internal.h"

namespace trainyard::kernels::internal {
namespace {

constexpr int kChunk = 8;  // elements a thread, of one group

__global__ void DequantizeKernel(const uint8_t* packed, const uint8_t* scales, bool is_mx, Floats values,
                                 int64_t size) {
  for (int64_t first = GlobalThread() * kChunk; first < size; first += GlobalThreads() * kChunk) {
    uint8_t bytes[kChunk / 2];
    float y[kChunk];
    LoadChunk<kChunk / 2>(packed + first / 2, kChunk / 2, bytes);
    const float scale =
        is_mx ? E8M0Value(scales[first / kMxGroup]) : WidenToFloat(Float8E4M3{scales[first / kNvGroup]});
    TY_UNROLL
    for (int i = 0; i < kChunk / 2; ++i) {
      y[2 * i] = E2M1Value(bytes[i] & 15) * scale;
      y[2 * i + 1] = E2M1Value(static_cast<uint8_t>(bytes[i] >> 4)) * scale;
    }
    Store<kChunk>(y, values, first, kChunk);
  }
}

}  // namespace

void Fp4GroupsDequantizeCuda(const Fp4GroupsDequantizeArgs& args, Stream& stream) {
  const int64_t size = args.values.size();
  if (size == 0) return;
  const bool is_mx = args.scales.dtype() == DType::kU8;
  if (!is_mx) TY_CHECK(args.scales.dtype() == DType::kF8E4M3);
  Launch(stream, ElementwiseGrid(size, kChunk), DequantizeKernel, args.packed.as<uint8_t>(),
         static_cast<const uint8_t*>(args.scales.data()), is_mx, Floats(args.values), size);
}

}  // namespace trainyard::kernels::internal
