#include "worker/daemon/log_spool.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstring>
#include <tuple>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/file.h"
#include "base/log.h"
#include "base/status_macros.h"

namespace trainyard::daemon {
namespace {

constexpr size_t kTailBytes = 8 << 10;
constexpr int64_t kBlock = 4096;

int64_t FileBytes(const std::string& path) {
  struct stat facts {};
  return stat(path.c_str(), &facts) == 0 ? facts.st_size : 0;
}

int64_t DirectoryBytes(const std::string& directory) {
  int64_t bytes = 0;
  const absl::StatusOr<std::vector<std::string>> names = ListDir(directory);
  if (!names.ok()) return 0;
  for (const std::string& name : *names) bytes += FileBytes(JoinPath(directory, name));
  return bytes;
}

}  // namespace

int64_t LogSpool::Stream::kept_bytes() const {
  int64_t bytes = size;
  for (const auto& [begin, end] : missing) bytes -= end - begin;
  return bytes;
}

int64_t LogSpool::Stream::lost_bytes() const {
  int64_t bytes = 0;
  for (const auto& [begin, end] : missing) bytes += std::max(int64_t{0}, end - std::max(begin, acked));
  return bytes;
}

std::string LogSpool::DirectoryOf(const v1::AttemptRef& ref) const {
  return absl::StrCat(options_.directory, "/", ref.job_uid(), "/", ref.attempt());
}

absl::StatusOr<LogSpool> LogSpool::Open(const LogSpoolOptions& options) {
  TY_RETURN_IF_ERROR(MakeDirs(options.directory));
  LogSpool spool(options);
  TY_ASSIGN_OR_RETURN(const std::vector<std::string> jobs, ListDir(options.directory));
  for (const std::string& job : jobs) {
    const std::string job_directory = JoinPath(options.directory, job);
    TY_ASSIGN_OR_RETURN(const std::vector<std::string> attempts, ListDir(job_directory));
    for (const std::string& attempt : attempts) TY_RETURN_IF_ERROR(spool.TakeUp(JoinPath(job_directory, attempt)));
  }
  spool.Enforce();
  return spool;
}

absl::Status LogSpool::TakeUp(const std::string& attempt_directory) {
  const std::string pending = JoinPath(attempt_directory, "pending");
  if (!FileExists(pending)) {
    archived_.push_back({attempt_directory, DirectoryBytes(attempt_directory)});
    return absl::OkStatus();
  }
  TY_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(pending));
  v1::AttemptRef ref;
  if (!ref.ParseFromString(bytes)) return absl::DataLossError(absl::StrCat(pending, " is not an attempt reference"));
  TY_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDir(attempt_directory));
  for (const std::string& name : names) {
    int rank = 0;
    char stream_name[16];
    if (std::sscanf(name.c_str(), "rank-%d.%15s", &rank, stream_name) != 2) continue;
    Stream stream;
    stream.ref = ref;
    stream.path = JoinPath(attempt_directory, name);
    stream.file = UniqueFd(open(stream.path.c_str(), O_RDWR | O_CLOEXEC));
    if (!stream.file.valid()) return ErrnoStatus(errno, "open", stream.path);
    stream.size = FileBytes(stream.path);
    stream.has_ended = true;
    // What an earlier daemon gave up has no blocks on disk.
    for (int64_t at = 0; at < stream.size;) {
      const off_t data = lseek(stream.file.get(), at, SEEK_DATA);
      const int64_t begin = data < 0 ? stream.size : data;
      if (begin > at) stream.missing.push_back({at, begin});
      const off_t hole = lseek(stream.file.get(), begin, SEEK_HOLE);
      at = hole <= begin ? stream.size : hole;
    }
    streams_.emplace(Key(ref.job_uid(), ref.attempt(), rank, stream_name), std::move(stream));
  }
  return absl::OkStatus();
}

absl::Status LogSpool::AddTask(const v1::AttemptRef& ref, const std::vector<int>& ranks) {
  const std::string directory = DirectoryOf(ref);
  TY_RETURN_IF_ERROR(MakeDirs(directory));
  TY_RETURN_IF_ERROR(WriteFileAtomic(JoinPath(directory, "pending"), ref.SerializeAsString()));
  for (const int rank : ranks) {
    for (const char* name : {"stdout", "stderr"}) {
      Stream stream;
      stream.ref = ref;
      stream.path = absl::StrCat(directory, "/rank-", rank, ".", name);
      stream.file = UniqueFd(open(stream.path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
      if (!stream.file.valid()) return ErrnoStatus(errno, "create", stream.path);
      streams_.insert_or_assign(Key(ref.job_uid(), ref.attempt(), rank, name), std::move(stream));
    }
  }
  return absl::OkStatus();
}

LogSpool::Stream* LogSpool::Find(const v1::AttemptRef& ref, int rank, absl::string_view stream) {
  const auto it = streams_.find(Key(ref.job_uid(), ref.attempt(), rank, std::string(stream)));
  return it == streams_.end() ? nullptr : &it->second;
}

void LogSpool::Append(const v1::AttemptRef& ref, int rank, absl::string_view stream_name, absl::string_view bytes) {
  Stream* stream = Find(ref, rank, stream_name);
  if (stream == nullptr || bytes.empty()) return;
  const int64_t begin = stream->size;
  stream->size += static_cast<int64_t>(bytes.size());
  absl::StrAppend(&stream->tail, bytes);
  if (stream->tail.size() > 2 * kTailBytes) stream->tail.erase(0, stream->tail.size() - kTailBytes);
  int64_t written = 0;
  while (written < static_cast<int64_t>(bytes.size())) {
    const ssize_t put = pwrite(stream->file.get(), bytes.data() + written, bytes.size() - static_cast<size_t>(written),
                               begin + written);
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) break;
    written += put;
  }
  if (begin + written < stream->size) Lose(*stream, begin + written, stream->size);
  Enforce();
}

void LogSpool::Lose(Stream& stream, int64_t begin, int64_t end) {
  if (begin >= end) return;
  const int64_t lost_before = stream.lost_bytes();
  stream.missing.push_back({begin, end});
  std::sort(stream.missing.begin(), stream.missing.end());
  std::vector<std::pair<int64_t, int64_t>> joined;
  for (const auto& range : stream.missing) {
    if (!joined.empty() && range.first <= joined.back().second) {
      joined.back().second = std::max(joined.back().second, range.second);
    } else {
      joined.push_back(range);
    }
  }
  stream.missing = std::move(joined);
  lost_bytes_ += stream.lost_bytes() - lost_before;
}

void LogSpool::End(const v1::AttemptRef& ref, int rank, absl::string_view stream_name) {
  Stream* stream = Find(ref, rank, stream_name);
  if (stream != nullptr) stream->has_ended = true;
}

bool LogSpool::NextChunk(const Key& key, Stream& stream, v1::LogChunk* chunk) {
  if (stream.in_flight >= options_.chunks_in_flight) return false;
  // The end goes alone and last, so that its acknowledgement cannot be taken for another's.
  const bool send_end = stream.has_ended && !stream.end_sent && stream.sent == stream.size && stream.in_flight == 0;
  if (stream.sent == stream.size && !send_end) return false;
  *chunk->mutable_ref() = stream.ref;
  chunk->set_rank(std::get<2>(key));
  chunk->set_stream(std::get<3>(key));
  int64_t end = std::min(stream.size, stream.sent + options_.chunk_bytes);
  for (const auto& [gap_begin, gap_end] : stream.missing) {
    if (gap_begin <= stream.sent && stream.sent < gap_end) {
      chunk->set_gap_bytes(gap_end - stream.sent);
      stream.sent = end = gap_end;
    } else if (gap_begin > stream.sent) {
      end = std::min(end, gap_begin);
      break;
    }
  }
  chunk->set_offset(stream.sent);
  if (end > stream.sent) {
    std::string data(static_cast<size_t>(end - stream.sent), '\0');
    const ssize_t got = pread(stream.file.get(), data.data(), data.size(), stream.sent);
    if (got <= 0) {
      LogWarning("log ", stream.path, " cannot be read at ", stream.sent, "; the rest of it is given up");
      Lose(stream, stream.sent, stream.size);
      return NextChunk(key, stream, chunk);
    }
    data.resize(static_cast<size_t>(got));
    stream.sent += got;
    chunk->set_data(std::move(data));
  }
  if (send_end) {
    chunk->set_end(true);
    stream.end_sent = true;
  }
  ++stream.in_flight;
  return true;
}

std::vector<v1::LogChunk> LogSpool::NextChunks(int count) {
  std::vector<v1::LogChunk> chunks;
  for (auto& [key, stream] : streams_) {
    while (static_cast<int>(chunks.size()) < count) {
      v1::LogChunk chunk;
      if (!NextChunk(key, stream, &chunk)) break;
      chunks.push_back(std::move(chunk));
    }
  }
  return chunks;
}

void LogSpool::Acked(const v1::LogAck& ack) {
  Stream* stream = Find(ack.ref(), ack.rank(), ack.stream());
  if (stream == nullptr) return;
  if (stream->in_flight > 0) --stream->in_flight;
  stream->acked = std::clamp(ack.next_offset(), stream->acked, stream->size);
  // Ahead of us: it has more than we sent in this session. Behind, with nothing under way: it lost something.
  if (stream->sent < stream->acked || (stream->in_flight == 0 && stream->acked < stream->sent)) {
    stream->sent = stream->acked;
    stream->end_sent = false;
  }
  if (stream->end_sent && stream->in_flight == 0 && stream->acked == stream->size) ArchiveIfDone(ack.ref());
}

void LogSpool::Rewind() {
  for (auto& [key, stream] : streams_) {
    stream.sent = stream.acked;
    stream.in_flight = 0;
    stream.end_sent = false;
  }
}

void LogSpool::ArchiveIfDone(const v1::AttemptRef& ref) {
  const auto begin = streams_.lower_bound(Key(ref.job_uid(), ref.attempt(), INT32_MIN, ""));
  auto end = begin;
  for (;
       end != streams_.end() && end->second.ref.job_uid() == ref.job_uid() && std::get<1>(end->first) == ref.attempt();
       ++end) {
    const Stream& stream = end->second;
    if (!stream.end_sent || stream.in_flight > 0 || stream.acked < stream.size) return;
  }
  streams_.erase(begin, end);
  const std::string directory = DirectoryOf(ref);
  unlink(JoinPath(directory, "pending").c_str());
  archived_.push_back({directory, DirectoryBytes(directory)});
}

int64_t LogSpool::bytes_on_disk() const {
  int64_t bytes = 0;
  for (const auto& [key, stream] : streams_) bytes += stream.kept_bytes();
  for (const Archived& archived : archived_) bytes += archived.bytes;
  return bytes;
}

void LogSpool::Enforce() {
  int64_t excess = bytes_on_disk() - options_.limit_bytes;
  while (excess > 0 && !archived_.empty()) {
    excess -= archived_.front().bytes;
    RemoveTree(archived_.front().directory).IgnoreError();  // tried again never: it is only disk space
    archived_.pop_front();
  }
  // Then the front of the longest stream: closed ones before live ones.
  while (excess > 0) {
    Stream* victim = nullptr;
    for (auto& [key, stream] : streams_) {
      if (stream.kept_bytes() == 0) continue;
      if (victim == nullptr || std::make_pair(stream.has_ended, stream.kept_bytes()) >
                                   std::make_pair(victim->has_ended, victim->kept_bytes())) {
        victim = &stream;
      }
    }
    if (victim == nullptr) return;
    const bool from_start = !victim->missing.empty() && victim->missing.front().first == 0;
    const int64_t begin = from_start ? victim->missing.front().second : 0;
    // An eighth of the limit at a time, in whole blocks, so that this is rare.
    const int64_t want = std::max(excess, options_.limit_bytes / 8);
    const int64_t end = std::min(victim->size, (begin + want + kBlock - 1) / kBlock * kBlock);
    const int64_t before = victim->kept_bytes();
    Lose(*victim, 0, end);
    if (fallocate(victim->file.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, end) != 0) {
      LogWarning("log ", victim->path, ": the file system cannot free its beginning: ", std::strerror(errno));
    }
    excess -= before - victim->kept_bytes();
  }
}

std::vector<std::string> LogSpool::LastLines(const v1::AttemptRef& ref, int rank, size_t count) const {
  for (const char* name : {"stderr", "stdout"}) {
    const auto it = streams_.find(Key(ref.job_uid(), ref.attempt(), rank, name));
    if (it == streams_.end() || it->second.tail.empty()) continue;
    std::vector<std::string> lines = absl::StrSplit(it->second.tail, '\n', absl::SkipEmpty());
    if (lines.size() > count) lines.erase(lines.begin(), lines.end() - static_cast<std::ptrdiff_t>(count));
    return lines;
  }
  return {};
}

}  // namespace trainyard::daemon
