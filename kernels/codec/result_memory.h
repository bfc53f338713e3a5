// Where a CUDA device leaves the few numbers that an op returns to its caller: pinned memory, borrowed for one call.
#pragma once

#include <cstdint>

namespace trainyard::kernels::internal {

class ResultMemory {
 public:
  static constexpr int64_t kDoubles = 256;

  // Takes memory that an earlier call has given back, or makes some; it stays with the process. Aborts if there is none
  // to be had (2 KiB). From any thread.
  ResultMemory();
  ~ResultMemory();
  ResultMemory(const ResultMemory&) = delete;
  ResultMemory& operator=(const ResultMemory&) = delete;

  double* data() const { return data_; }

 private:
  double* data_;
};

}  // namespace trainyard::kernels::internal
