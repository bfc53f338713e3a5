#include "worker/data/token_shard.h"

#include <fcntl.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <limits>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/file.h"
#include "base/status_macros.h"

namespace trainyard::data {
namespace {

static_assert(std::endian::native == std::endian::little, "shards are read as they lie in memory");

constexpr char kMagic[] = "TYTOKENS";
constexpr uint32_t kVersion = 1;
constexpr size_t kFlushBytes = size_t{1} << 20;

struct Header {
  char magic[8];
  uint32_t version;
  uint32_t bytes_per_token;
  uint64_t token_count;
  uint32_t vocab_size;
  uint32_t max_token;
  uint8_t digest[16];
  uint64_t document_count;
  uint64_t header_digest;
};
static_assert(sizeof(Header) == 64);

uint64_t DigestOfHeader(const Header& header) {
  return XXH3_64bits(&header, offsetof(Header, header_digest));
}

int BytesPerToken(int32_t vocab_size) {
  return vocab_size <= 65536 ? 2 : 4;
}

absl::Status WriteAt(int fd, const void* data, size_t bytes, off_t offset, const std::string& path) {
  const char* next = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t written = pwrite(fd, next, bytes, offset);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return ErrnoStatus(errno, "write", path);
    next += written;
    offset += written;
    bytes -= static_cast<size_t>(written);
  }
  return absl::OkStatus();
}

template <typename T>
int32_t CopyTokens(const uint8_t* data, int64_t count, int32_t* out) {
  const T* const tokens = reinterpret_cast<const T*>(data);  // aligned: the header has 64 bytes
  uint32_t largest = 0;
  for (int64_t i = 0; i < count; ++i) {
    out[i] = static_cast<int32_t>(tokens[i]);
    largest = std::max<uint32_t>(largest, tokens[i]);
  }
  return static_cast<int32_t>(std::min<uint32_t>(largest, std::numeric_limits<int32_t>::max()));
}

}  // namespace

absl::StatusOr<TokenShardWriter> TokenShardWriter::Create(const std::string& path, int32_t vocab_size) {
  if (vocab_size < 1) return absl::InvalidArgumentError(absl::StrCat(path, ": vocab_size ", vocab_size, " is below 1"));
  const std::string temporary = path + ".tmp";
  UniqueFd fd(open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  if (!fd.valid()) return ErrnoStatus(errno, "create", temporary);
  TokenShardWriter writer(path, std::move(fd));
  writer.info_.vocab_size = vocab_size;
  writer.info_.bytes_per_token = BytesPerToken(vocab_size);
  return writer;
}

TokenShardWriter::~TokenShardWriter() {
  if (fd_.valid()) unlink((path_ + ".tmp").c_str());
}

absl::Status TokenShardWriter::Append(absl::Span<const int32_t> tokens) {
  for (int32_t token : tokens) {
    if (token < 0 || token >= info_.vocab_size) {
      return absl::InvalidArgumentError(
          absl::StrCat(path_, ": token ", token, " is not in [0, ", info_.vocab_size, ")"));
    }
    info_.max_token = std::max(info_.max_token, token);
    const uint32_t value = static_cast<uint32_t>(token);
    const uint8_t* const bytes = reinterpret_cast<const uint8_t*>(&value);
    buffer_.insert(buffer_.end(), bytes, bytes + info_.bytes_per_token);
    ++info_.token_count;
    if (buffer_.size() >= kFlushBytes) TY_RETURN_IF_ERROR(Flush());
  }
  return absl::OkStatus();
}

absl::Status TokenShardWriter::Flush() {
  digest_.Update(buffer_.data(), buffer_.size());
  const int64_t end = info_.token_count * info_.bytes_per_token;
  const off_t offset = static_cast<off_t>(sizeof(Header)) + end - static_cast<off_t>(buffer_.size());
  TY_RETURN_IF_ERROR(WriteAt(fd_.get(), buffer_.data(), buffer_.size(), offset, path_ + ".tmp"));
  buffer_.clear();
  return absl::OkStatus();
}

absl::StatusOr<TokenShardInfo> TokenShardWriter::Finish() {
  TY_CHECK(fd_.valid());
  TY_RETURN_IF_ERROR(Flush());
  info_.digest = digest_.Hex();
  Header header{};
  std::memcpy(header.magic, kMagic, sizeof(header.magic));
  header.version = kVersion;
  header.bytes_per_token = static_cast<uint32_t>(info_.bytes_per_token);
  header.token_count = static_cast<uint64_t>(info_.token_count);
  header.vocab_size = static_cast<uint32_t>(info_.vocab_size);
  header.max_token = static_cast<uint32_t>(info_.max_token);
  const std::string digest = absl::HexStringToBytes(info_.digest);
  std::memcpy(header.digest, digest.data(), sizeof(header.digest));
  header.document_count = static_cast<uint64_t>(info_.document_count);
  header.header_digest = DigestOfHeader(header);
  const std::string temporary = path_ + ".tmp";
  TY_RETURN_IF_ERROR(WriteAt(fd_.get(), &header, sizeof(header), 0, temporary));
  if (fsync(fd_.get()) != 0) return ErrnoStatus(errno, "sync", temporary);
  if (rename(temporary.c_str(), path_.c_str()) != 0) return ErrnoStatus(errno, "rename", temporary);
  fd_.reset();
  return info_;
}

absl::StatusOr<TokenShard> TokenShard::Open(const std::string& path) {
  TY_ASSIGN_OR_RETURN(MappedFile file, MappedFile::Open(path, MappedFile::Access::kRandom));
  const auto bad = [&](absl::string_view what) { return absl::DataLossError(absl::StrCat(path, ": ", what)); };
  Header header;
  if (file.size() < sizeof(header)) return bad(absl::StrCat(file.size(), " bytes are too few for a token shard"));
  std::memcpy(&header, file.data(), sizeof(header));
  if (std::memcmp(header.magic, kMagic, sizeof(header.magic)) != 0) return bad("is no token shard (wrong magic)");
  if (header.version != kVersion) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": version ", header.version, ", this program reads 1"));
  }
  if (header.header_digest != DigestOfHeader(header)) return bad("the header is damaged (digest)");
  if (header.vocab_size < 1 || header.vocab_size > static_cast<uint32_t>(std::numeric_limits<int32_t>::max()) ||
      header.bytes_per_token != static_cast<uint32_t>(BytesPerToken(static_cast<int32_t>(header.vocab_size)))) {
    return bad(absl::StrCat(header.bytes_per_token, " bytes a token for a vocabulary of ", header.vocab_size));
  }
  const uint64_t present = file.size() - sizeof(header);
  if (present % header.bytes_per_token != 0 || present / header.bytes_per_token != header.token_count) {
    return bad(absl::StrCat(present, " bytes of tokens where ", header.token_count, " tokens of ",
                            header.bytes_per_token, " bytes were written"));
  }
  if (header.max_token >= header.vocab_size) {
    return bad(absl::StrCat("largest token ", header.max_token, " in a vocabulary of ", header.vocab_size));
  }
  TokenShard shard(path, std::move(file));
  shard.info_.token_count = static_cast<int64_t>(header.token_count);
  shard.info_.document_count = static_cast<int64_t>(header.document_count);
  shard.info_.vocab_size = static_cast<int32_t>(header.vocab_size);
  shard.info_.max_token = static_cast<int32_t>(header.max_token);
  shard.info_.bytes_per_token = static_cast<int>(header.bytes_per_token);
  shard.info_.digest =
      absl::BytesToHexString(absl::string_view(reinterpret_cast<const char*>(header.digest), sizeof(header.digest)));
  return shard;
}

absl::Status TokenShard::Verify() const {
  absl::string_view tokens = file_.text();
  tokens.remove_prefix(sizeof(Header));
  const std::string digest = DigestOf(tokens);
  if (digest != info_.digest) {
    return absl::DataLossError(absl::StrCat(path_, ": the tokens' digest is ", digest, ", written was ", info_.digest));
  }
  return absl::OkStatus();
}

int32_t TokenShard::Copy(int64_t begin, int64_t count, int32_t* out) const {
  TY_CHECK_GE(begin, 0);
  TY_CHECK_GE(count, 0);
  TY_CHECK_LE(begin + count, info_.token_count);
  if (count == 0) return -1;
  const uint8_t* const data = file_.data() + sizeof(Header) + begin * info_.bytes_per_token;
  return info_.bytes_per_token == 2 ? CopyTokens<uint16_t>(data, count, out) : CopyTokens<uint32_t>(data, count, out);
}

}  // namespace trainyard::data
