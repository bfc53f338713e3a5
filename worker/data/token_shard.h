// A token shard: a 64-byte header, then token_count unsigned integers, all little endian.
//
//   offset  size  field
//        0     8  magic "TYTOKENS"
//        8     4  version, 1
//       12     4  bytes per token, 2 (vocab_size <= 65536) or 4
//       16     8  token count
//       24     4  vocab size: every id is below it
//       28     4  largest id present (0 in an empty shard)
//       32    16  XXH3-128 of the tokens' bytes, big endian (the order in which its hex digits are written)
//       48     8  document count (end-of-text tokens)
//       56     8  XXH3-64 of bytes 0..55
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/digest.h"
#include "base/mapped_file.h"
#include "base/unique_fd.h"

namespace trainyard::data {

struct TokenShardInfo {
  int64_t token_count = 0;
  int64_t document_count = 0;
  int32_t vocab_size = 0;
  int32_t max_token = 0;
  int bytes_per_token = 0;
  std::string digest;  // hex, of the tokens' bytes
};

// Writes "<path>.tmp" as a stream and renames it into place when finished, durable. One thread at a time.
class TokenShardWriter {
 public:
  // Two bytes a token if vocab_size <= 65536, else four.
  static absl::StatusOr<TokenShardWriter> Create(const std::string& path, int32_t vocab_size);
  TokenShardWriter(TokenShardWriter&&) noexcept = default;
  TokenShardWriter& operator=(TokenShardWriter&&) = delete;
  ~TokenShardWriter();  // removes an unfinished file

  // InvalidArgument for an id outside [0, vocab_size).
  absl::Status Append(absl::Span<const int32_t> tokens);
  void CountDocument() { ++info_.document_count; }
  int64_t token_count() const { return info_.token_count; }
  absl::StatusOr<TokenShardInfo> Finish();

 private:
  TokenShardWriter(std::string path, UniqueFd fd) : path_(std::move(path)), fd_(std::move(fd)) {}
  absl::Status Flush();

  std::string path_;
  UniqueFd fd_;
  TokenShardInfo info_;
  std::vector<uint8_t> buffer_;
  Digest digest_;
};

// A mapped shard. Safe from any thread.
class TokenShard {
 public:
  // Checks the header, its digest and the file's length: DataLoss, naming file and values, if they disagree. The
  // tokens' own digest is checked by Verify, which reads them all.
  static absl::StatusOr<TokenShard> Open(const std::string& path);
  absl::Status Verify() const;

  const std::string& path() const { return path_; }
  const TokenShardInfo& info() const { return info_; }

  // Copies tokens [begin, begin + count) and returns the largest of them, -1 if count is 0. An id of 2^31 or more
  // (only a damaged four-byte shard has one) comes back as the negative number with the same bits, and INT32_MAX.
  int32_t Copy(int64_t begin, int64_t count, int32_t* out) const;

 private:
  TokenShard(std::string path, MappedFile file) : path_(std::move(path)), file_(std::move(file)) {}

  std::string path_;
  MappedFile file_;
  TokenShardInfo info_;
};

}  // namespace trainyard::data
