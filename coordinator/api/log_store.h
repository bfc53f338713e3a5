// Logs of ranks as files: directory/<job uid>/<attempt>/rank-<r>.<stream>. The offset of a byte in a stream is its
// offset in the file. Bytes that are lost for ever are a hole, listed in rank-<r>.<stream>.gaps as "offset bytes"
// lines; rank-<r>.<stream>.end exists once the stream is complete.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/mutex.h"

namespace trainyard::coordinator {

struct LogKey {
  std::string job_uid;
  int attempt = 1;
  int rank = 0;
  std::string stream;  // "stdout" or "stderr"
};

struct LogPiece {
  int64_t offset = 0;
  std::string data;
  int64_t gap_bytes = 0;  // > 0: that many bytes before `offset` are gone; then data is empty
};

// Safe from any thread.
class LogStore {
 public:
  explicit LogStore(std::string directory) : directory_(std::move(directory)) {}

  // Adds `data` at `offset` as far as it is new, and returns the offset that is wanted next: everything before it is in
  // the file. A chunk beyond the end changes nothing, unless its gap reaches back to the end. An error means that
  // nothing was added; the worker sends it again.
  absl::StatusOr<int64_t> Append(const LogKey& key, int64_t offset, int64_t gap_bytes, absl::string_view data,
                                 bool end);

  // At most `limit` bytes from `offset` on; an empty piece at the end of what is there. NOT_FOUND is not an error here:
  // a stream nobody wrote is empty.
  absl::StatusOr<LogPiece> Read(const LogKey& key, int64_t offset, size_t limit) const;

  int64_t Size(const LogKey& key) const;
  bool HasEnded(const LogKey& key) const;

  // The logs of a deleted job.
  void Remove(const std::string& job_uid);

 private:
  std::string PathOf(const LogKey& key) const;

  const std::string directory_;
  Mutex mutex_;  // one writer at a time; chunks are small
};

}  // namespace trainyard::coordinator
