// Readers of image files. Errors name the file: NotFound if it is not there, InvalidArgument for content that is
// something else or has a size we do not take, DataLoss for a file that ends early or whose checks fail.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/data/images/image_set.h"

namespace trainyard::data {

// IDX of the MNIST family (u8, 3 dimensions), plain or gzip whatever its name; `labels_path` (u8, 1 dimension) may be
// empty. Images of up to 32 x 32.
absl::StatusOr<RawImages> ReadIdx(const std::string& images_path, const std::string& labels_path);

// The binary version of CIFAR: records of 1 label byte (CIFAR-100: coarse, then fine, of which the fine one is taken)
// and 3 x 32 x 32 bytes. Files are read in the order given.
absl::StatusOr<RawImages> ReadCifar(const std::vector<std::string>& paths, int classes /* 10 or 100 */);

// All *.png of a folder, in the order of their names; or, if the folder has subfolders instead, those of the
// subfolders, each of which is a class, in the order of theirs. Other files and hidden ones are passed over. `channels`
// 1 or 3: colours are turned to grey, greys to colour, and what is transparent lies over black. All must have one size
// of up to 32 x 32.
absl::StatusOr<RawImages> ReadPngFolder(const std::string& directory, int channels);

// Where the images of a job come from.
struct ImageFiles {
  enum class Format { kIdx, kCifar10, kCifar100, kPngFolder };
  Format format = Format::kIdx;
  std::vector<std::string> paths = {};  // kIdx: one; CIFAR: one or more; kPngFolder: one folder
  std::string labels_path = {};         // kIdx; may be empty
  int channels = 3;                     // kPngFolder
};
absl::StatusOr<ImageSet> OpenImages(const ImageFiles& files);

}  // namespace trainyard::data
