#include "coordinator/api/log_store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "base/unique_fd.h"

namespace trainyard::coordinator {
namespace {

struct Gap {
  int64_t begin, end;
};

std::vector<Gap> ReadGaps(const std::string& path) {
  std::vector<Gap> gaps;
  const auto text = ReadFile(absl::StrCat(path, ".gaps"));
  if (!text.ok()) return gaps;  // no gaps: the usual case
  for (const absl::string_view line : absl::StrSplit(*text, '\n', absl::SkipEmpty())) {
    const std::vector<absl::string_view> fields = absl::StrSplit(line, ' ');
    int64_t offset = 0, bytes = 0;
    if (fields.size() == 2 && absl::SimpleAtoi(fields[0], &offset) && absl::SimpleAtoi(fields[1], &bytes)) {
      gaps.push_back({offset, offset + bytes});
    }
  }
  return gaps;
}

absl::Status WriteAll(int fd, int64_t offset, absl::string_view data, const std::string& path) {
  while (!data.empty()) {
    const ssize_t wrote = pwrite(fd, data.data(), data.size(), offset);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) return ErrnoStatus(errno, "write", path);
    data.remove_prefix(static_cast<size_t>(wrote));
    offset += wrote;
  }
  return absl::OkStatus();
}

absl::StatusOr<UniqueFd> OpenForWriting(const std::string& path) {
  UniqueFd fd(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
  if (fd.get() < 0) return ErrnoStatus(errno, "open", path);
  return fd;
}

}  // namespace

std::string LogStore::PathOf(const LogKey& key) const {
  return absl::StrCat(directory_, "/", key.job_uid, "/", key.attempt, "/rank-", key.rank, ".", key.stream);
}

absl::StatusOr<int64_t> LogStore::Append(const LogKey& key, int64_t offset, int64_t gap_bytes, absl::string_view data,
                                         bool end) {
  const std::string path = PathOf(key);
  MutexLock lock(&mutex_);
  TY_RETURN_IF_ERROR(MakeDirs(path.substr(0, path.rfind('/'))));
  TY_ASSIGN_OR_RETURN(const UniqueFd fd, OpenForWriting(path));
  struct stat info = {};
  if (fstat(fd.get(), &info) != 0) return ErrnoStatus(errno, "stat", path);
  const int64_t size = info.st_size;
  if (offset > size) {
    if (offset - gap_bytes > size) return size;
    // Recorded before the file grows over it, so that a hole is never taken for bytes.
    TY_ASSIGN_OR_RETURN(const UniqueFd gaps, OpenForWriting(absl::StrCat(path, ".gaps")));
    struct stat gaps_info = {};
    if (fstat(gaps.get(), &gaps_info) != 0) return ErrnoStatus(errno, "stat", path);
    TY_RETURN_IF_ERROR(WriteAll(gaps.get(), gaps_info.st_size, absl::StrCat(size, " ", offset - size, "\n"), path));
    if (ftruncate(fd.get(), offset) != 0) return ErrnoStatus(errno, "extend", path);
  }
  int64_t next = std::max(size, offset);
  const int64_t known = next - offset;
  if (known < static_cast<int64_t>(data.size())) {
    const absl::string_view fresh = data.substr(static_cast<size_t>(known));
    const absl::Status status = WriteAll(fd.get(), next, fresh, path);
    if (!status.ok()) {
      if (ftruncate(fd.get(), next) != 0) return ErrnoStatus(errno, "cut back", path);
      return status;
    }
    next += static_cast<int64_t>(fresh.size());
  }
  if (end && next == offset + static_cast<int64_t>(data.size())) {
    TY_RETURN_IF_ERROR(OpenForWriting(absl::StrCat(path, ".end")).status());
  }
  return next;
}

absl::StatusOr<LogPiece> LogStore::Read(const LogKey& key, int64_t offset, size_t limit) const {
  const std::string path = PathOf(key);
  LogPiece piece{.offset = offset, .data = {}, .gap_bytes = 0};
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd.get() < 0) {
    if (errno == ENOENT) return piece;
    return ErrnoStatus(errno, "open", path);
  }
  for (const Gap& gap : ReadGaps(path)) {
    if (offset >= gap.begin && offset < gap.end) {
      piece.offset = gap.end;
      piece.gap_bytes = gap.end - offset;
      return piece;
    }
    if (gap.begin > offset) limit = std::min(limit, static_cast<size_t>(gap.begin - offset));
  }
  piece.data.resize(limit);
  ssize_t got = 0;
  do {
    got = pread(fd.get(), piece.data.data(), limit, offset);
  } while (got < 0 && errno == EINTR);
  if (got < 0) return ErrnoStatus(errno, "read", path);
  piece.data.resize(static_cast<size_t>(got));
  return piece;
}

int64_t LogStore::Size(const LogKey& key) const {
  struct stat info = {};
  return stat(PathOf(key).c_str(), &info) == 0 ? info.st_size : 0;
}

bool LogStore::HasEnded(const LogKey& key) const {
  return FileExists(absl::StrCat(PathOf(key), ".end"));
}

void LogStore::Remove(const std::string& job_uid) {
  MutexLock lock(&mutex_);
  RemoveTree(absl::StrCat(directory_, "/", job_uid)).IgnoreError();  // the job is gone already; the space is lost
}

}  // namespace trainyard::coordinator
