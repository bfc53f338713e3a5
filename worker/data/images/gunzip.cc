#include "worker/data/images/gunzip.h"

#include <zlib.h>

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"

namespace trainyard::data {
namespace {

constexpr int kGzipWindow = 15 + 16;  // the largest window; gzip wrapping only
constexpr size_t kChunk = 1 << 20;

absl::Status TooLong(const std::string& path, int64_t limit_bytes) {
  return absl::InvalidArgumentError(absl::StrCat(path, ": content is longer than ", limit_bytes, " bytes"));
}

absl::StatusOr<std::string> Inflate(const std::string& path, const std::string& packed, int64_t limit_bytes) {
  z_stream stream = {};
  if (inflateInit2(&stream, kGzipWindow) != Z_OK) return absl::ResourceExhaustedError("zlib: no memory");
  struct End {
    ~End() { inflateEnd(stream); }
    z_stream* stream;
  } end{&stream};
  std::string content;
  std::string chunk(kChunk, '\0');
  const auto limit = static_cast<size_t>(limit_bytes);
  size_t fed = 0;
  while (true) {
    if (stream.avail_in == 0 && fed < packed.size()) {
      const size_t bytes = std::min(packed.size() - fed, kChunk);
      stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(packed.data() + fed));
      stream.avail_in = static_cast<uInt>(bytes);
      fed += bytes;
    }
    stream.next_out = reinterpret_cast<Bytef*>(chunk.data());
    stream.avail_out = static_cast<uInt>(chunk.size());
    const int result = inflate(&stream, Z_NO_FLUSH);
    const size_t produced = chunk.size() - stream.avail_out;
    if (content.size() + produced > limit) return TooLong(path, limit_bytes);
    content.append(chunk.data(), produced);
    if (result == Z_STREAM_END) {
      if (stream.avail_in == 0 && fed == packed.size()) return content;
      if (inflateReset(&stream) != Z_OK) return absl::InternalError("zlib: cannot begin the next gzip member");
    } else if (result == Z_BUF_ERROR || (result == Z_OK && produced == 0 && stream.avail_in == 0)) {
      if (fed == packed.size()) return absl::DataLossError(absl::StrCat(path, ": gzip data ends early"));
    } else if (result != Z_OK) {
      return absl::DataLossError(
          absl::StrCat(path, ": bad gzip data: ", stream.msg == nullptr ? "unknown error" : stream.msg));
    }
  }
}

}  // namespace

absl::StatusOr<std::string> ReadMaybeGzip(const std::string& path, int64_t limit_bytes) {
  TY_ASSIGN_OR_RETURN(std::string content, ReadFile(path));
  const bool is_gzip = content.size() >= 2 && content[0] == '\x1f' && content[1] == '\x8b';
  if (is_gzip) return Inflate(path, content, limit_bytes);
  if (content.size() > static_cast<size_t>(limit_bytes)) return TooLong(path, limit_bytes);
  return content;
}

}  // namespace trainyard::data
