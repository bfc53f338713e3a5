#include "tests/support/small_disk.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cerrno>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "base/unique_fd.h"

namespace trainyard::testing_support {

absl::Status MountSmallDisk(const std::string& path, int64_t bytes) {
  TY_RETURN_IF_ERROR(MakeDirs(path));
  if (unshare(CLONE_NEWNS) != 0) {
    // Not root: a user namespace gives the right to mount inside it.
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) return ErrnoStatus(errno, "mount namespace for", path);
  }
  if (mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return ErrnoStatus(errno, "mount private", "/");
  if (mount("tmpfs", path.c_str(), "tmpfs", 0, absl::StrCat("size=", bytes).c_str()) != 0) {
    return ErrnoStatus(errno, "mount", path);
  }
  return absl::OkStatus();
}

void FillDisk(const std::string& path) {
  UniqueFd fd(open((path + "/filler").c_str(), O_WRONLY | O_CREAT, 0644));
  TY_CHECK(fd.valid());
  TY_CHECK_GE(lseek(fd.get(), 0, SEEK_END), 0);
  // Down to single bytes, so that not even a small append finds room.
  for (size_t chunk = 1 << 16; chunk > 0; chunk /= 16) {
    const std::vector<char> zeros(chunk);
    while (write(fd.get(), zeros.data(), chunk) > 0) {
    }
  }
}

void EmptyDisk(const std::string& path) {
  TY_CHECK_OK(RemoveTree(path + "/filler"));
}

}  // namespace trainyard::testing_support
