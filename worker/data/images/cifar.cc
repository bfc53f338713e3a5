#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "worker/data/images/image_files.h"

namespace trainyard::data {

absl::StatusOr<RawImages> ReadCifar(const std::vector<std::string>& paths, int classes) {
  TY_CHECK(classes == 10 || classes == 100);
  constexpr size_t kPixels = 3 * 32 * 32;
  const size_t label_bytes = classes == 10 ? 1 : 2;
  const size_t record = label_bytes + kPixels;
  RawImages images;
  images.channels = 3;
  images.height = images.width = kImageExtent;
  images.class_count = classes;
  for (const std::string& path : paths) {
    TY_ASSIGN_OR_RETURN(const std::string content, ReadFile(path));
    if (content.empty() || content.size() % record != 0) {
      return absl::DataLossError(absl::StrCat(path, ": ", content.size(), " bytes are not a multiple of the ", record,
                                              " of a CIFAR-", classes, " record"));
    }
    for (size_t at = 0; at < content.size(); at += record) {
      const int label = static_cast<uint8_t>(content[at + label_bytes - 1]);
      if (label >= classes) {
        return absl::InvalidArgumentError(absl::StrCat(path, ": label ", label, " in record ", at / record,
                                                       ", wanted 0 to ", classes - 1, "; is it CIFAR-", classes, "?"));
      }
      images.labels.push_back(label);
      const auto pixels = content.begin() + static_cast<int64_t>(at + label_bytes);
      images.pixels.insert(images.pixels.end(), pixels, pixels + kPixels);
      ++images.count;
    }
  }
  if (images.count == 0) return absl::InvalidArgumentError("no CIFAR files given");
  return images;
}

}  // namespace trainyard::data
