#include <algorithm>
#include <cstdint>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/data/images/gunzip.h"
#include "worker/data/images/image_files.h"

namespace trainyard::data {
namespace {

constexpr int64_t kLimitBytes = int64_t{1} << 32;
constexpr uint8_t kUnsignedByte = 0x08;

// A file of the format: two zero bytes, a type, the number of dimensions, their extents (u32, big endian), the
// elements.
struct Idx {
  std::vector<int64_t> shape;
  std::vector<uint8_t> values;
};

absl::StatusOr<Idx> ReadIdxFile(const std::string& path, size_t dimensions) {
  TY_ASSIGN_OR_RETURN(const std::string content, ReadMaybeGzip(path, kLimitBytes));
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(content[i]); };
  if (content.size() < 4) return absl::DataLossError(absl::StrCat(path, ": ends in the header"));
  if (byte(0) != 0 || byte(1) != 0) return absl::InvalidArgumentError(absl::StrCat(path, ": not an IDX file"));
  if (byte(2) != kUnsignedByte || byte(3) != dimensions) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": element type ", byte(2), " with ", byte(3),
                                                   " dimensions, wanted unsigned bytes (8) with ", dimensions));
  }
  const size_t header = 4 + 4 * dimensions;
  if (content.size() < header) return absl::DataLossError(absl::StrCat(path, ": ends in the header"));
  Idx idx;
  uint64_t elements = 1;
  for (size_t d = 0; d < dimensions; ++d) {
    const size_t at = 4 + 4 * d;
    const uint64_t extent =
        uint64_t{byte(at)} << 24 | uint64_t{byte(at + 1)} << 16 | uint64_t{byte(at + 2)} << 8 | byte(at + 3);
    idx.shape.push_back(static_cast<int64_t>(extent));
    // 2^32 elements are beyond the limit, and one more factor below 2^32 cannot wrap round.
    elements = std::min<uint64_t>(elements, uint64_t{1} << 32) * extent;
  }
  if (elements != content.size() - header) {
    return absl::DataLossError(
        absl::StrCat(path, ": ", content.size() - header, " bytes after the header, which says ", elements));
  }
  idx.values.assign(content.begin() + static_cast<int64_t>(header), content.end());
  return idx;
}

}  // namespace

absl::StatusOr<RawImages> ReadIdx(const std::string& images_path, const std::string& labels_path) {
  TY_ASSIGN_OR_RETURN(Idx pixels, ReadIdxFile(images_path, 3));
  RawImages images;
  images.count = pixels.shape[0];
  images.channels = 1;
  images.height = pixels.shape[1];
  images.width = pixels.shape[2];
  if (images.count == 0) return absl::InvalidArgumentError(absl::StrCat(images_path, ": no images"));
  if (images.height < 1 || images.height > kImageExtent || images.width < 1 || images.width > kImageExtent) {
    return absl::InvalidArgumentError(absl::StrCat(images_path, ": images of ", images.width, " x ", images.height,
                                                   ", wanted 1 x 1 to ", kImageExtent, " x ", kImageExtent));
  }
  images.pixels = std::move(pixels.values);
  if (labels_path.empty()) return images;
  TY_ASSIGN_OR_RETURN(const Idx labels, ReadIdxFile(labels_path, 1));
  if (labels.shape[0] != images.count) {
    return absl::InvalidArgumentError(
        absl::StrCat(labels_path, ": ", labels.shape[0], " labels for ", images.count, " images of ", images_path));
  }
  images.labels.assign(labels.values.begin(), labels.values.end());
  images.class_count = 1 + *std::max_element(images.labels.begin(), images.labels.end());
  return images;
}

}  // namespace trainyard::data
