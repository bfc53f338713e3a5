// Logs of runners on this worker's disk, and what of them still has to go to the coordinator (CP-11, I17).
//
// directory/<job uid>/<attempt>/rank-<r>.{stdout,stderr}, and beside them `pending` (the attempt's AttemptRef) until
// the coordinator has acknowledged every byte and the end of every stream. Offsets count the bytes of a stream from its
// start for ever; bytes that are given up (spool full, disk full) become a gap.
//
// One thread uses it. Disk errors never stop a runner: the bytes are lost, and the gap says how many.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/unique_fd.h"
#include "proto/v1/worker.pb.h"

namespace trainyard::daemon {

struct LogSpoolOptions {
  std::string directory;
  int64_t limit_bytes = int64_t{1} << 30;
  int64_t chunk_bytes = 64 << 10;
  int chunks_in_flight = 4;  // a stream
};

class LogSpool {
 public:
  // Takes up what earlier daemons left pending, as ended streams.
  static absl::StatusOr<LogSpool> Open(const LogSpoolOptions& options);

  absl::Status AddTask(const v1::AttemptRef& ref, const std::vector<int>& ranks);
  void Append(const v1::AttemptRef& ref, int rank, absl::string_view stream, absl::string_view bytes);
  void End(const v1::AttemptRef& ref, int rank, absl::string_view stream);

  // The next chunks to send, at most `count`; each stream has a bounded number in flight.
  std::vector<v1::LogChunk> NextChunks(int count);
  void Acked(const v1::LogAck& ack);
  // A new session: what was not acknowledged goes again.
  void Rewind();

  // The newest lines of a rank: of stderr, or of stdout if stderr is empty. For exit records.
  std::vector<std::string> LastLines(const v1::AttemptRef& ref, int rank, size_t count) const;

  // Everything is acknowledged.
  bool idle() const { return streams_.empty(); }
  int64_t bytes_on_disk() const;
  int64_t lost_bytes() const { return lost_bytes_; }

 private:
  // (uid, attempt, rank, stream)
  using Key = std::tuple<std::string, int, int, std::string>;

  struct Stream {
    v1::AttemptRef ref;
    std::string path;
    UniqueFd file;
    int64_t size = 0;                                  // bytes of the stream so far
    std::vector<std::pair<int64_t, int64_t>> missing;  // [begin, end) that are gone, ascending
    bool has_ended = false;
    bool end_sent = false;
    int64_t sent = 0;
    int64_t acked = 0;
    int in_flight = 0;
    std::string tail;

    int64_t kept_bytes() const;
    // Bytes that are gone and that the coordinator does not have.
    int64_t lost_bytes() const;
  };

  // Files of attempts that need no upload any more; the first to go.
  struct Archived {
    std::string directory;
    int64_t bytes = 0;
  };

  explicit LogSpool(const LogSpoolOptions& options) : options_(options) {}
  absl::Status TakeUp(const std::string& attempt_directory);
  Stream* Find(const v1::AttemptRef& ref, int rank, absl::string_view stream);
  bool NextChunk(const Key& key, Stream& stream, v1::LogChunk* chunk);
  void Lose(Stream& stream, int64_t begin, int64_t end);
  void ArchiveIfDone(const v1::AttemptRef& ref);
  void Enforce();
  std::string DirectoryOf(const v1::AttemptRef& ref) const;

  LogSpoolOptions options_;
  std::map<Key, Stream> streams_;
  std::deque<Archived> archived_;  // oldest first
  int64_t lost_bytes_ = 0;
};

}  // namespace trainyard::daemon
