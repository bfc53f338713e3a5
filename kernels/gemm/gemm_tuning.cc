#include "kernels/gemm/gemm_tuning.h"

#include <atomic>

namespace trainyard::kernels {
namespace {

std::atomic<GemmTuning> current{GemmTuning::kFirst};

}  // namespace

void SetGemmTuning(GemmTuning tuning) {
  current.store(tuning, std::memory_order_relaxed);
}

GemmTuning CurrentGemmTuning() {
  return current.load(std::memory_order_relaxed);
}

}  // namespace trainyard::kernels
