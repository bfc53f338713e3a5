// What a rank tries before it says that it is ready (control-plane.md, CP-37): that its device computes right, and that
// its folder takes what it is given. What NVML tells of a GPU the daemon has looked at by then (worker/daemon/gpu).
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "kernels/core/device.h"

namespace trainyard::runner {

// One square matrix product in f32 and one in bf16, of small whole numbers, so that every sum is exact: rows are
// compared with what integers give, by a product with one vector (Freivalds' check). A fraction of a second, most
// of it the host's; nothing is done for the CPU. Unavailable, with reason GPU_UNHEALTHY, the dtype and the first wrong
// row; other errors if the device cannot be used at all.
absl::Status TryDevice(kernels::Device device);
// The same with the matrices' extent: at most 2^18, so that sums stay exact.
absl::Status TryDevice(kernels::Device device, int64_t extent);

// Writes a file into `directory`, which must be there, syncs it, reads it back and removes it. Unavailable, with reason
// DISK_UNHEALTHY or DISK_FULL and the folder.
absl::Status TryDisk(const std::string& directory);
// Whether there is room for a checkpoint of `bytes`. Unavailable, with reason DISK_FULL, the folder and the numbers.
absl::Status CheckRoom(const std::string& directory, int64_t bytes);

namespace internal {

// The number of the first row of c = a b that is not right, or -1. a, b: row-major (extent, extent) of ElementA and
// ElementB.
int64_t FirstWrongRow(const float* c, int64_t extent);
int ElementA(int64_t row, int64_t col);
int ElementB(int64_t row, int64_t col);

}  // namespace internal
}  // namespace trainyard::runner
