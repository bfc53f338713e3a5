#include "worker/cache/file_cache.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "base/check.h"
#include "base/digest.h"
#include "base/file.h"
#include "base/log.h"
#include "base/status_macros.h"

namespace trainyard::cache {
namespace {

constexpr char kPart[] = ".part";
constexpr char kLock[] = "lock";
constexpr size_t kBufferBytes = 1 << 20;
constexpr absl::Duration kLook = absl::Milliseconds(10);
// Who makes room does nothing but list and remove files on a local disk.
constexpr absl::Duration kRoomTimeout = absl::Seconds(10);

bool IsDigest(absl::string_view text) {
  return text.size() == 32 &&
         std::all_of(text.begin(), text.end(), [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

bool TryLock(int fd, int kind) {
  while (flock(fd, kind | LOCK_NB) != 0) {
    if (errno != EINTR) return false;
  }
  return true;
}

// The open file is still the one of that name: it was not renamed or removed between open and lock.
bool IsAt(int fd, const std::string& path) {
  struct stat mine {
  }, there{};
  return fstat(fd, &mine) == 0 && stat(path.c_str(), &there) == 0 && mine.st_dev == there.st_dev &&
         mine.st_ino == there.st_ino;
}

ssize_t ReadSome(int fd, std::vector<char>& buffer) {
  while (true) {
    const ssize_t got = read(fd, buffer.data(), buffer.size());
    if (got >= 0 || errno != EINTR) return got;
  }
}

bool WriteAll(int fd, const char* data, size_t bytes) {
  while (bytes > 0) {
    const ssize_t written = write(fd, data, bytes);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return false;
    data += written;
    bytes -= static_cast<size_t>(written);
  }
  return true;
}

// Removes a file that nobody holds a lock on.
bool RemoveUnused(const std::string& path) {
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  return fd.valid() && TryLock(fd.get(), LOCK_EX) && IsAt(fd.get(), path) && unlink(path.c_str()) == 0;
}

// Removes the file when it goes, unless told otherwise.
class Unlinker {
 public:
  explicit Unlinker(std::string path) : path_(std::move(path)) {}
  ~Unlinker() {
    if (!path_.empty()) unlink(path_.c_str());
  }
  void Keep() { path_.clear(); }

 private:
  std::string path_;
};

int64_t FreeBytes(const std::string& directory) {
  struct statvfs info {};
  if (statvfs(directory.c_str(), &info) != 0) return 0;
  return static_cast<int64_t>(info.f_bavail) * static_cast<int64_t>(info.f_frsize);
}

struct Entry {
  timespec used{};
  std::string path;
  int64_t bytes = 0;
};

bool UsedEarlier(const Entry& a, const Entry& b) {
  if (a.used.tv_sec != b.used.tv_sec) return a.used.tv_sec < b.used.tv_sec;
  if (a.used.tv_nsec != b.used.tv_nsec) return a.used.tv_nsec < b.used.tv_nsec;
  return a.path < b.path;
}

}  // namespace

FileCache::FileCache(FileCacheOptions options) : options_(std::move(options)) {
  TY_CHECK(!options_.directory.empty());
  TY_CHECK(options_.limit_bytes > 0);
}

std::string FileCache::EntryPath(const std::string& digest) const {
  return JoinPath(options_.directory, digest);
}

FileCacheCounts FileCache::counts() const {
  MutexLock lock(&mutex_);
  return counts_;
}

FileCache::Outcome FileCache::Bypass(absl::string_view why) {
  bool is_first = false;
  {
    MutexLock lock(&mutex_);
    is_first = !std::exchange(has_warned_, true);
  }
  const std::string text = absl::StrCat("the cache ", options_.directory, " is passed by: ", why);
  if (is_first) {
    LogWarning(text, "; not said again by this process");
  } else {
    LogDebug(text);
  }
  return Outcome::kBypass;
}

absl::StatusOr<CachedFile> FileCache::Get(const std::string& digest, const std::string& original) {
  if (!IsDigest(digest)) {
    return absl::InvalidArgumentError(
        absl::StrCat(original, ": '", digest, "' is not a digest of 32 hexadecimal digits"));
  }
  TrimOnce();
  const absl::Duration give_up = options_.clock->Monotonic() + options_.wait_timeout;
  while (true) {
    int64_t bytes = 0;
    UniqueFd entry = OpenEntry(digest, &bytes);
    Outcome outcome = Outcome::kFound;
    if (!entry.valid()) {
      TY_ASSIGN_OR_RETURN(outcome, Fetch(digest, original, &entry, &bytes));
    }
    if (entry.valid()) {
      MutexLock lock(&mutex_);
      ++(outcome == Outcome::kFound ? counts_.hits : counts_.misses);
      (outcome == Outcome::kFound ? counts_.hit_bytes : counts_.miss_bytes) += bytes;
      return CachedFile(EntryPath(digest), std::move(entry));
    }
    if (outcome == Outcome::kBusy && options_.clock->Monotonic() >= give_up) {
      outcome =
          Bypass(absl::StrCat(digest, " is still on its way in after ", absl::FormatDuration(options_.wait_timeout)));
    }
    if (outcome == Outcome::kBypass) {
      struct stat info {};
      if (stat(original.c_str(), &info) != 0) return ErrnoStatus(errno, "stat", original);
      MutexLock lock(&mutex_);
      ++counts_.bypasses;
      counts_.bypass_bytes += info.st_size;
      return CachedFile(original);
    }
    absl::SleepFor(kLook);
  }
}

UniqueFd FileCache::OpenEntry(const std::string& digest, int64_t* bytes) {
  const std::string path = EntryPath(digest);
  UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat info {};
  // Without a name it was removed before we had the lock.
  if (!fd.valid() || !TryLock(fd.get(), LOCK_SH) || fstat(fd.get(), &info) != 0 || info.st_nlink == 0) return {};
  Digest content;
  std::vector<char> buffer(kBufferBytes);
  ssize_t got = 0;
  while ((got = ReadSome(fd.get(), buffer)) > 0) content.Update(buffer.data(), static_cast<size_t>(got));
  if (got < 0 || content.Hex() != digest) {
    LogWarning(path, " is damaged; it is fetched again");
    MutexLock lock(&mutex_);
    ++counts_.damaged;
    return {};
  }
  Stamp(fd.get());
  *bytes = info.st_size;
  return fd;
}

// The time of the last change is that of the last use: files are not changed otherwise, and access times are often off.
void FileCache::Stamp(int fd) {
  const timespec now = absl::ToTimespec(options_.clock->Now());
  const timespec both[2] = {now, now};
  futimens(fd, both);  // a failure makes it look older than it is, nothing else
}

absl::StatusOr<FileCache::Outcome> FileCache::Fetch(const std::string& digest, const std::string& original,
                                                    UniqueFd* entry, int64_t* bytes) {
  const std::string path = EntryPath(digest), part_path = path + kPart;
  UniqueFd part(open(part_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
  if (!part.valid() && errno == ENOENT) {
    if (const absl::Status made = MakeDirs(options_.directory); !made.ok()) return Bypass(made.message());
    part.reset(open(part_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
  }
  if (!part.valid()) return Bypass(ErrnoStatus(errno, "create", part_path).message());
  if (!TryLock(part.get(), LOCK_EX)) {
    if (errno == EWOULDBLOCK) return Outcome::kBusy;
    return Bypass(ErrnoStatus(errno, "lock", part_path).message());
  }
  if (!IsAt(part.get(), part_path)) return Outcome::kBusy;  // it is an entry now, or gone

  // From here on the name is ours: only who holds this lock renames or removes it.
  Unlinker unlinker(part_path);
  // Somebody may have been done between our look and our lock.
  if (*entry = OpenEntry(digest, bytes); entry->valid()) return Outcome::kFound;
  TY_ASSIGN_OR_RETURN(const Outcome copied, Copy(digest, original, part.get()));
  if (copied != Outcome::kCopied) return copied;
  Stamp(part.get());
  if (rename(part_path.c_str(), path.c_str()) != 0) return Bypass(ErrnoStatus(errno, "rename", part_path).message());
  unlinker.Keep();
  // The lock may be lost for a moment while it changes its kind, and the entry with it.
  struct stat info {};
  if (!TryLock(part.get(), LOCK_SH) || fstat(part.get(), &info) != 0 || info.st_nlink == 0) return Outcome::kBusy;
  *bytes = info.st_size;
  *entry = std::move(part);
  return Outcome::kCopied;
}

absl::StatusOr<FileCache::Outcome> FileCache::Copy(const std::string& digest, const std::string& original, int part) {
  const UniqueFd source(open(original.c_str(), O_RDONLY | O_CLOEXEC));
  if (!source.valid()) return ErrnoStatus(errno, "open", original);
  struct stat there {
  }, here{};
  if (fstat(source.get(), &there) != 0) return ErrnoStatus(errno, "stat", original);
  if (!S_ISREG(there.st_mode)) return absl::InvalidArgumentError(absl::StrCat(original, ": not a regular file"));
  if (fstat(part, &here) != 0) return Bypass(ErrnoStatus(errno, "stat", options_.directory).message());
  if (here.st_dev == there.st_dev && !options_.copies_from_same_disk) return Outcome::kBypass;
  if (const absl::Status room = MakeRoom(digest + kPart, there.st_size, part); !room.ok()) {
    return Bypass(room.message());
  }
  Digest content;
  std::vector<char> buffer(kBufferBytes);
  int64_t bytes = 0;
  while (bytes <= there.st_size) {
    const ssize_t got = ReadSome(source.get(), buffer);
    if (got < 0) return ErrnoStatus(errno, "read", original);
    if (got == 0) break;
    content.Update(buffer.data(), static_cast<size_t>(got));
    if (!WriteAll(part, buffer.data(), static_cast<size_t>(got))) {
      return Bypass(ErrnoStatus(errno, "write", EntryPath(digest) + kPart).message());
    }
    bytes += got;
  }
  if (const std::string found = content.Hex(); bytes != there.st_size || found != digest) {
    return absl::DataLossError(
        absl::StrCat(original, ": its ", bytes, " bytes have the digest ", found, ", not ", digest));
  }
  return Outcome::kCopied;
}

// Sets `bytes` aside in `part`, the file `own_part` of the folder, so that the next who asks for room counts them.
absl::Status FileCache::MakeRoom(const std::string& own_part, int64_t bytes, int part) {
  if (bytes > options_.limit_bytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat("a file of ", bytes, " bytes, the limit is ", options_.limit_bytes));
  }
  const std::string lock_path = JoinPath(options_.directory, kLock);
  const UniqueFd lock(open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
  if (!lock.valid()) return ErrnoStatus(errno, "open", lock_path);
  const absl::Duration give_up = RealClock()->Monotonic() + kRoomTimeout;
  while (!TryLock(lock.get(), LOCK_EX)) {
    if (errno != EWOULDBLOCK) return ErrnoStatus(errno, "lock", lock_path);
    if (RealClock()->Monotonic() >= give_up) {
      return absl::DeadlineExceededError(absl::StrCat(lock_path, " is held by another runner"));
    }
    absl::SleepFor(kLook);
  }

  TY_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDir(options_.directory));
  std::vector<Entry> entries;
  int64_t total = bytes;
  for (const std::string& name : names) {
    const std::string path = JoinPath(options_.directory, name);
    struct stat info {};
    if (name == own_part || stat(path.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) continue;
    if (absl::EndsWith(name, kPart)) {
      if (!RemoveUnused(path)) total += info.st_size;  // else left behind by a runner that was killed
    } else {
      total += info.st_size;
      if (IsDigest(name)) entries.push_back({info.st_mtim, path, info.st_size});
    }
  }
  std::sort(entries.begin(), entries.end(), UsedEarlier);
  if (part >= 0 && ftruncate(part, 0) != 0) return ErrnoStatus(errno, "truncate", own_part);
  const auto lacks_room = [&] {
    return total > options_.limit_bytes || FreeBytes(options_.directory) < options_.min_free_bytes + bytes;
  };
  for (auto next = entries.begin(); lacks_room(); ++next) {
    if (next == entries.end()) {
      return absl::ResourceExhaustedError(absl::StrCat("no room for ", bytes, " bytes: what is in use takes ",
                                                       total - bytes, " of ", options_.limit_bytes, ", and ",
                                                       FreeBytes(options_.directory), " bytes of the disk are free, ",
                                                       options_.min_free_bytes, " of them for others"));
    }
    if (RemoveUnused(next->path)) total -= next->bytes;
  }
  if (part < 0 || bytes == 0) return absl::OkStatus();
  if (const int error = posix_fallocate(part, 0, bytes); error != 0) return ErrnoStatus(error, "allocate", own_part);
  return absl::OkStatus();
}

// The limit may be lower than that of those who filled the folder.
void FileCache::TrimOnce() {
  {
    MutexLock lock(&mutex_);
    if (std::exchange(is_trimmed_, true)) return;
  }
  if (!FileExists(options_.directory)) return;
  if (const absl::Status room = MakeRoom("", 0, -1); !room.ok()) Bypass(room.message());
}

absl::StatusOr<CachedFile> GetFile(FileCache* cache, const std::string& digest, const std::string& original) {
  if (cache == nullptr || digest.empty()) return CachedFile(original);
  return cache->Get(digest, original);
}

std::string DigestInName(const std::string& path, absl::string_view before, absl::string_view after) {
  const std::string name = std::filesystem::path(path).filename().string();
  absl::string_view digest = name;
  if (!absl::ConsumePrefix(&digest, before) || !absl::ConsumeSuffix(&digest, after) || !IsDigest(digest)) return "";
  return std::string(digest);
}

}  // namespace trainyard::cache
