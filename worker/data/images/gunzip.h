// Files that may be compressed with gzip.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace trainyard::data {

// The content of a file, decompressed if it begins like gzip (RFC 1952; several members follow each other). DataLoss,
// naming the file, if it ends early or a checksum is wrong; InvalidArgument if the content is longer than
// `limit_bytes`.
absl::StatusOr<std::string> ReadMaybeGzip(const std::string& path, int64_t limit_bytes);

}  // namespace trainyard::data
