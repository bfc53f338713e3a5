#include "worker/runner/health.h"

#include <fcntl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "kernels/core/arena.h"
#include "kernels/core/stream.h"
#include "kernels/gemm/gemm.h"
#include "proto/rpc/error_details.h"

namespace trainyard::runner {
namespace {

using kernels::Arena;
using kernels::DType;
using kernels::TensorView;

// Enough tiles for every multiprocessor of a large GPU; an emulated one would take minutes.
constexpr int64_t kExtent = 2048;
constexpr int64_t kEmulatedExtent = 48;
constexpr size_t kProbeBytes = size_t{1} << 20;

// Of the vector that both sides are multiplied with: no two neighbours alike, so that swapped columns show.
int64_t Weight(int64_t col) {
  return col % 13 - 6;
}

struct Operands {
  Operands(int64_t extent, DType dtype, Arena& arena)
      : a(arena.Allocate("health", dtype, {extent, extent})),
        b(arena.Allocate("health", dtype, {extent, extent})),
        c(arena.Allocate("health", DType::kF32, {extent, extent})),
        workspace(arena.Allocate("health", DType::kU8, {kernels::GemmWorkspaceBytes(dtype, extent, extent, extent)})) {}
  TensorView a, b, c, workspace;
};

template <typename T>
void FillOperands(const Operands& operands) {
  const int64_t extent = operands.a.dim(0);
  for (int64_t row = 0; row < extent; ++row) {
    for (int64_t col = 0; col < extent; ++col) {
      operands.a.as<T>()[row * extent + col] = kernels::FromFloat<T>(static_cast<float>(internal::ElementA(row, col)));
      operands.b.as<T>()[row * extent + col] = kernels::FromFloat<T>(static_cast<float>(internal::ElementB(row, col)));
    }
  }
}

absl::Status TryProduct(kernels::Stream& stream, DType dtype, int64_t extent) {
  Arena counting = Arena::CountOnly(stream.device());
  Operands(extent, dtype, counting);
  TY_ASSIGN_OR_RETURN(Arena arena, Arena::Reserve(counting));
  const Operands operands(extent, dtype, arena);
  if (dtype == DType::kF32) {
    FillOperands<float>(operands);
  } else {
    FillOperands<kernels::BFloat16>(operands);
  }
  Gemm({.a = operands.a, .b = operands.b, .c = operands.c, .workspace = operands.workspace}, stream);
  TY_RETURN_IF_ERROR(stream.Synchronize());
  const int64_t wrong = internal::FirstWrongRow(operands.c.as<float>(), extent);
  if (wrong < 0) return absl::OkStatus();
  return ErrorWithReason(absl::StatusCode::kUnavailable, "GPU_UNHEALTHY",
                         absl::StrCat("a product of ", extent, " x ", extent, " whole numbers in ",
                                      dtype == DType::kF32 ? "f32" : "bf16", " is wrong from row ", wrong, " on"));
}

absl::Status DiskError(int error, absl::string_view what, const std::string& directory) {
  const bool is_full = error == ENOSPC || error == EDQUOT;
  return ErrorWithReason(absl::StatusCode::kUnavailable, is_full ? "DISK_FULL" : "DISK_UNHEALTHY",
                         ErrnoStatus(error, what, directory).message());
}

// 0, or errno; EIO if what comes back is not what was written.
int WriteAndReadBack(int fd, const std::vector<char>& content) {
  size_t done = 0;
  while (done < content.size()) {
    const ssize_t written = write(fd, content.data() + done, content.size() - done);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return written < 0 ? errno : EIO;
    done += static_cast<size_t>(written);
  }
  if (fsync(fd) != 0) return errno;
  std::vector<char> back(content.size());
  done = 0;
  while (done < back.size()) {
    const ssize_t got = pread(fd, back.data() + done, back.size() - done, static_cast<off_t>(done));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return got < 0 ? errno : EIO;
    done += static_cast<size_t>(got);
  }
  return back == content ? 0 : EIO;
}

}  // namespace

namespace internal {

int ElementA(int64_t row, int64_t col) {
  return static_cast<int>((row * 7 + col * 3) % 5) - 2;
}

int ElementB(int64_t row, int64_t col) {
  return static_cast<int>((row * 5 + col * 11) % 7) - 3;
}

int64_t FirstWrongRow(const float* c, int64_t extent) {
  std::vector<int64_t> b_weights(static_cast<size_t>(extent));
  for (int64_t row = 0; row < extent; ++row) {
    for (int64_t col = 0; col < extent; ++col) b_weights[static_cast<size_t>(row)] += ElementB(row, col) * Weight(col);
  }
  for (int64_t row = 0; row < extent; ++row) {
    double got = 0;  // exact: whole numbers below 2^53
    int64_t expected = 0;
    for (int64_t col = 0; col < extent; ++col) {
      got += static_cast<double>(c[row * extent + col]) * static_cast<double>(Weight(col));
      expected += ElementA(row, col) * b_weights[static_cast<size_t>(col)];
    }
    if (!(got == static_cast<double>(expected))) return row;  // NaN is wrong too
  }
  return -1;
}

}  // namespace internal

absl::Status TryDevice(kernels::Device device) {
  return TryDevice(device, kernels::DeviceBackend() == "emulated" ? kEmulatedExtent : kExtent);
}

absl::Status TryDevice(kernels::Device device, int64_t extent) {
  if (device == kernels::Device::kCpu) return absl::OkStatus();
  TY_RETURN_IF_ERROR(kernels::CheckCudaDevice());
  kernels::Stream stream(device, /*threads=*/1);
  for (const DType dtype : {DType::kF32, DType::kBF16}) TY_RETURN_IF_ERROR(TryProduct(stream, dtype, extent));
  return absl::OkStatus();
}

absl::Status CheckRoom(const std::string& directory, int64_t bytes) {
  struct statvfs room;
  if (statvfs(directory.c_str(), &room) != 0) return DiskError(errno, "looking for room in", directory);
  const auto free_bytes = static_cast<int64_t>(room.f_bavail) * static_cast<int64_t>(room.f_frsize);
  if (free_bytes >= bytes) return absl::OkStatus();
  return ErrorWithReason(
      absl::StatusCode::kUnavailable, "DISK_FULL",
      absl::StrCat(directory, ": ", free_bytes, " bytes are free, and a checkpoint takes ", bytes, " of this rank"));
}

absl::Status TryDisk(const std::string& directory) {
  std::string path = JoinPath(directory, ".health-XXXXXX");
  const int fd = mkostemp(path.data(), O_CLOEXEC);
  if (fd < 0) return DiskError(errno, "making a file in", directory);
  unlink(path.c_str());  // gone with the descriptor, also after a kill
  std::vector<char> content(kProbeBytes);
  for (size_t i = 0; i < content.size(); ++i) content[i] = static_cast<char>(i * 31 + i / 257);
  const int error = WriteAndReadBack(fd, content);
  close(fd);
  return error == 0 ? absl::OkStatus() : DiskError(error, "writing and reading back in", directory);
}

}  // namespace trainyard::runner
