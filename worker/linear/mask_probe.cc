#include "worker/linear/mask_probe.h"

#include "kernels/core/dispatch.h"

namespace trainyard::linear {

MaskedElements CountMasked(const kernels::TensorView& mask, int64_t cols, kernels::Stream& stream) {
  if (!mask) return {};
  kernels::WaitForDevice(stream);
  int64_t passing = 0;
  const uint8_t* const bytes = mask.as<uint8_t>();
  for (int64_t i = 0; i < mask.size(); ++i) passing += __builtin_popcount(bytes[i]);
  const int64_t all = mask.dim(0) * cols;
  return {all - passing, all};
}

}  // namespace trainyard::linear
