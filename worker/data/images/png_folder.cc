#include <png.h>
#include <sys/stat.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "worker/data/images/image_files.h"

namespace trainyard::data {
namespace {

bool IsFolder(const std::string& path) {
  struct stat info;
  return stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

// Whether a file has its last chunk: libpng is content once it has all pixels.
bool HasEnd(const std::string& content) {
  constexpr size_t kNameAndChecksum = 8;
  const size_t at = content.rfind("IEND");
  return at != std::string::npos && at + kNameAndChecksum <= content.size();
}

// Appends the image of a file, whose size must be that of the images before it.
absl::Status AddPng(const std::string& path, RawImages* images) {
  TY_ASSIGN_OR_RETURN(const std::string content, ReadFile(path));
  png_image image = {};
  image.version = PNG_IMAGE_VERSION;
  struct Free {
    ~Free() { png_image_free(image); }
    png_image* image;
  } free_at_end{&image};
  if (png_image_begin_read_from_memory(&image, content.data(), content.size()) == 0) {
    return absl::DataLossError(absl::StrCat(path, ": ", image.message));
  }
  if (!HasEnd(content)) return absl::DataLossError(absl::StrCat(path, ": ends early"));
  const auto height = static_cast<int64_t>(image.height);
  const auto width = static_cast<int64_t>(image.width);
  if (height > kImageExtent || width > kImageExtent) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": ", width, " x ", height, " pixels, wanted at most ", kImageExtent, " x ", kImageExtent));
  }
  if (images->count > 0 && (height != images->height || width != images->width)) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", width, " x ", height, " pixels, the images before it ",
                                                   images->width, " x ", images->height));
  }
  images->height = height;
  images->width = width;
  const auto channels = static_cast<size_t>(images->channels);
  image.format = channels == 1 ? PNG_FORMAT_GRAY : PNG_FORMAT_RGB;
  const png_color black = {0, 0, 0};
  std::vector<uint8_t> interleaved(PNG_IMAGE_SIZE(image));
  if (png_image_finish_read(&image, &black, interleaved.data(), 0, nullptr) == 0) {
    return absl::DataLossError(absl::StrCat(path, ": ", image.message));
  }
  for (size_t c = 0; c < channels; ++c) {
    for (size_t i = c; i < interleaved.size(); i += channels) images->pixels.push_back(interleaved[i]);
  }
  ++images->count;
  return absl::OkStatus();
}

// Names of a folder that are not hidden, as folders and PNG files.
struct Listing {
  std::vector<std::string> folders, files;
};
absl::StatusOr<Listing> List(const std::string& directory) {
  TY_ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDir(directory));
  Listing listing;
  for (const std::string& name : names) {
    if (name.front() == '.') continue;
    const std::string path = JoinPath(directory, name);
    if (IsFolder(path)) {
      listing.folders.push_back(path);
    } else if (absl::EndsWithIgnoreCase(name, ".png")) {
      listing.files.push_back(path);
    }
  }
  return listing;
}

}  // namespace

absl::StatusOr<RawImages> ReadPngFolder(const std::string& directory, int channels) {
  TY_CHECK(channels == 1 || channels == 3);
  RawImages images;
  images.channels = channels;
  TY_ASSIGN_OR_RETURN(const Listing top, List(directory));
  if (!top.files.empty() && !top.folders.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(directory, ": has PNG files and subfolders; it must have one or the other"));
  }
  for (const std::string& path : top.files) TY_RETURN_IF_ERROR(AddPng(path, &images));
  for (const std::string& folder : top.folders) {
    TY_ASSIGN_OR_RETURN(const Listing listing, List(folder));
    if (listing.files.empty()) return absl::InvalidArgumentError(absl::StrCat(folder, ": no PNG files"));
    for (const std::string& path : listing.files) {
      TY_RETURN_IF_ERROR(AddPng(path, &images));
      images.labels.push_back(images.class_count);
    }
    ++images.class_count;
  }
  if (images.count == 0) return absl::InvalidArgumentError(absl::StrCat(directory, ": no PNG files"));
  return images;
}

}  // namespace trainyard::data
