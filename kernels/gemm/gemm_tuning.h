// Which of cuBLASLt's kernels a shape gets (cublaslt.h). The choice is made when a shape is first met, and kept.
#pragma once

namespace trainyard::kernels {

enum class GemmTuning {
  kFirst,     // the library's own first choice: the same in every run on one kind of GPU
  kMeasured,  // the fastest of its first eight, timed then: two runs may get different ones, and so different bits
};

// Of all products that any thread starts later. No effect on the CPU and on the emulated device. kFirst at the start.
void SetGemmTuning(GemmTuning tuning);
GemmTuning CurrentGemmTuning();

}  // namespace trainyard::kernels
