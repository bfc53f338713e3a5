// A folder on this host's disk with copies of files that lie on storage which may be far away. Entries are named by the
// digest of their content (XXH3-128, base/digest.h), so they never become old, and equal files are kept once.
//
//   directory/<digest>        a whole file
//   directory/<digest>.part   one on its way in, locked (flock) by who brings it
//   directory/lock            held while room is made
//
// Any number of threads and processes share a folder, and each may be killed at any moment. A copy is made beside its
// name and renamed when its digest is right; nothing is synced, because an entry is read and its digest compared each
// time it is given out: one that is damaged is fetched again. That check costs a pass over the file at the speed of
// memory, since whoever asks is about to read it anyway.
//
// All files together, those on their way in included, never take more than the limit; the least recently used go first,
// those in use (a shared flock) never. What the cache cannot do (a full or unwritable disk, a file larger than the
// limit, nothing that may go) fails nobody: the file is read where it is, and the log says so once.
//
// flock must work in the folder: a local disk.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/mutex.h"
#include "base/unique_fd.h"

namespace trainyard::cache {

struct FileCacheOptions {
  std::string directory;    // absolute; made when it is needed
  int64_t limit_bytes = 0;  // of all files together
  // What is left free on the folder's disk for others.
  int64_t min_free_bytes = int64_t{1} << 30;
  // How long to wait for another runner that brings the same file in; after that it is read where it is.
  absl::Duration wait_timeout = absl::Seconds(60);
  // Files on the disk that the folder is on are as near as their copy would be. Tests have nothing else.
  bool copies_from_same_disk = false;
  Clock* clock = RealClock();
};

// A file to read. One of the cache's stays there as long as this lives.
class CachedFile {
 public:
  // A file that is read where it is.
  explicit CachedFile(std::string path) : path_(std::move(path)) {}
  const std::string& path() const { return path_; }
  bool is_copy() const { return lock_.valid(); }

 private:
  friend class FileCache;
  CachedFile(std::string path, UniqueFd lock) : path_(std::move(path)), lock_(std::move(lock)) {}
  std::string path_;
  UniqueFd lock_;  // shared, on the entry
};

struct FileCacheCounts {
  int64_t hits = 0, hit_bytes = 0;         // given out from the folder
  int64_t misses = 0, miss_bytes = 0;      // copied into it
  int64_t bypasses = 0, bypass_bytes = 0;  // left where they are
  int64_t damaged = 0;                     // entries whose content was wrong
};

// Safe from any thread.
class FileCache {
 public:
  explicit FileCache(FileCacheOptions options);

  // A file with the content of `original`, whose digest is `digest`. Errors are those of the original alone: NotFound
  // and others if it must be read and cannot be, DataLoss if its content is not what `digest` says. InvalidArgument for
  // a digest that is not 32 lower-case hexadecimal digits.
  absl::StatusOr<CachedFile> Get(const std::string& digest, const std::string& original);

  FileCacheCounts counts() const;

 private:
  struct Original {
    UniqueFd fd;
    int64_t bytes = 0;
  };
  enum class Outcome {
    kFound,   // it was there
    kCopied,  // it is there now
    kBusy,    // somebody else is at it: look again
    kBypass,  // the cache cannot; said in the log
  };

  std::string EntryPath(const std::string& digest) const;
  // Locked and its content compared; invalid if there is no good entry.
  UniqueFd OpenEntry(const std::string& digest, int64_t* bytes);
  // An error is the original's.
  absl::StatusOr<Outcome> Fetch(const std::string& digest, const std::string& original, UniqueFd* entry,
                                int64_t* bytes);
  absl::StatusOr<Outcome> Copy(const std::string& digest, const std::string& original, int part);
  absl::Status MakeRoom(const std::string& own_part, int64_t bytes, int part);
  void TrimOnce();
  void Stamp(int fd);
  Outcome Bypass(absl::string_view why);

  const FileCacheOptions options_;
  mutable Mutex mutex_;
  FileCacheCounts counts_ ABSL_GUARDED_BY(mutex_);
  bool is_trimmed_ ABSL_GUARDED_BY(mutex_) = false;
  bool has_warned_ ABSL_GUARDED_BY(mutex_) = false;
};

// cache->Get, or the original as it is if `cache` is null or `digest` empty.
absl::StatusOr<CachedFile> GetFile(FileCache* cache, const std::string& digest, const std::string& original);

// "0123...ef" of "a/b/<before>0123...ef<after>"; empty if the name of `path` is not so.
std::string DigestInName(const std::string& path, absl::string_view before, absl::string_view after);

}  // namespace trainyard::cache
