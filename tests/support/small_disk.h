// A file system of a few megabytes, for tests of what happens when the disk is full: a tmpfs in a mount namespace of
// the test's own.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"

namespace trainyard::testing_support {

// Moves this process (and its later children) into a new mount namespace and mounts a tmpfs of `bytes` at `path`. Call
// before any thread is started. PermissionDenied where the kernel allows no such thing to this user.
absl::Status MountSmallDisk(const std::string& path, int64_t bytes);

// Writes zeros to `<path>/filler` until the disk is full.
void FillDisk(const std::string& path);
void EmptyDisk(const std::string& path);  // removes the filler

}  // namespace trainyard::testing_support
