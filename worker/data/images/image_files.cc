#include "worker/data/images/image_files.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace trainyard::data {
namespace {

absl::StatusOr<RawImages> Read(const ImageFiles& files) {
  const bool wants_one = files.format == ImageFiles::Format::kIdx || files.format == ImageFiles::Format::kPngFolder;
  if (files.paths.empty() || (wants_one && files.paths.size() != 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("paths: ", files.paths.size(), " given, wanted ", wants_one ? "one" : "one or more"));
  }
  switch (files.format) {
    case ImageFiles::Format::kIdx:
      return ReadIdx(files.paths.front(), files.labels_path);
    case ImageFiles::Format::kCifar10:
      return ReadCifar(files.paths, 10);
    case ImageFiles::Format::kCifar100:
      return ReadCifar(files.paths, 100);
    case ImageFiles::Format::kPngFolder:
      break;
  }
  if (files.channels != 1 && files.channels != 3) {
    return absl::InvalidArgumentError(absl::StrCat("channels: ", files.channels, " is neither 1 nor 3"));
  }
  return ReadPngFolder(files.paths.front(), files.channels);
}

}  // namespace

absl::StatusOr<ImageSet> OpenImages(const ImageFiles& files) {
  TY_ASSIGN_OR_RETURN(RawImages images, Read(files));
  return ImageSet::Create(std::move(images));
}

}  // namespace trainyard::data
