// Whole-file reads and durable writes. Errors name the path and errno's text.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace trainyard {

// Status for errno with "<what> <path>: <text>": NotFound, PermissionDenied, ResourceExhausted for a full disk,
// AlreadyExists, Unavailable otherwise.
absl::Status ErrnoStatus(int error, absl::string_view what, absl::string_view path);

absl::StatusOr<std::string> ReadFile(const std::string& path);

// Readers see the old content or the new, never a mixture, also after a power loss: writes a temporary file beside
// `path`, syncs it, renames it, syncs the folder.
absl::Status WriteFileAtomic(const std::string& path, absl::string_view content);

// Makes a folder and its parents; fine if it exists.
absl::Status MakeDirs(const std::string& path);

// Makes what was renamed or created in `directory` durable.
absl::Status SyncDir(const std::string& directory);

// Names (not paths) in a folder, sorted, without "." and "..".
absl::StatusOr<std::vector<std::string>> ListDir(const std::string& directory);

// Removes a file, or a folder with all below it; fine if it does not exist.
absl::Status RemoveTree(const std::string& path);

bool FileExists(const std::string& path);

// "a/b" from "a" and "b"; an absolute `name` stays itself.
std::string JoinPath(absl::string_view directory, absl::string_view name);

// Holds an advisory exclusive lock on a file as long as it lives; the kernel drops it with the process.
class FileLock {
 public:
  // Creates the file if needed. FailedPrecondition, with the holder's process id, if another process holds it.
  static absl::StatusOr<FileLock> Acquire(const std::string& path);
  FileLock(FileLock&& other) noexcept;
  FileLock& operator=(FileLock&& other) noexcept;
  ~FileLock();

  // A process that inherits the descriptor shares the lock: it is held until both have closed it.
  int fd() const { return fd_; }

 private:
  explicit FileLock(int fd) : fd_(fd) {}
  int fd_ = -1;
};

}  // namespace trainyard
