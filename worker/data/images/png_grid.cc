#include "worker/data/images/png_grid.h"

#include <png.h>

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/file.h"
#include "base/status_macros.h"

namespace trainyard::data {
namespace {

constexpr int64_t kGap = 2;
constexpr uint8_t kGapShade = 32;

uint8_t ToByte(float value) {
  const float scaled = (value + 1.0f) * 127.5f + 0.5f;
  return scaled >= 256.0f ? uint8_t{255} : scaled > 0.0f ? static_cast<uint8_t>(scaled) : uint8_t{0};
}

}  // namespace

absl::StatusOr<std::string> EncodePngGrid(const kernels::TensorView& images, int columns) {
  TY_CHECK_EQ(images.rank(), 4);
  TY_CHECK_GE(columns, 1);
  const int64_t count = images.dim(0);
  const int64_t channels = images.dim(1);
  const int64_t height = images.dim(2);
  const int64_t width = images.dim(3);
  TY_CHECK(channels == 1 || channels == 3);
  TY_CHECK_GE(count, 1);
  const int64_t across = std::min<int64_t>(columns, count);
  const int64_t down = (count + across - 1) / across;
  const int64_t total_width = across * (width + kGap) - kGap;
  const int64_t total_height = down * (height + kGap) - kGap;
  std::vector<uint8_t> pixels(static_cast<size_t>(total_width * total_height * channels), kGapShade);
  const float* from = images.as<float>();
  for (int64_t n = 0; n < count; ++n) {
    const int64_t top = n / across * (height + kGap);
    const int64_t left = n % across * (width + kGap);
    for (int64_t c = 0; c < channels; ++c) {
      for (int64_t y = 0; y < height; ++y) {
        for (int64_t x = 0; x < width; ++x) {
          pixels[static_cast<size_t>(((top + y) * total_width + left + x) * channels + c)] = ToByte(*from++);
        }
      }
    }
  }
  png_image image = {};
  image.version = PNG_IMAGE_VERSION;
  image.width = static_cast<png_uint_32>(total_width);
  image.height = static_cast<png_uint_32>(total_height);
  image.format = channels == 1 ? PNG_FORMAT_GRAY : PNG_FORMAT_RGB;
  png_alloc_size_t bytes = PNG_IMAGE_PNG_SIZE_MAX(image);
  std::string encoded(bytes, '\0');
  if (png_image_write_to_memory(&image, encoded.data(), &bytes, 0, pixels.data(), 0, nullptr) == 0) {
    return absl::InternalError(absl::StrCat("cannot encode a PNG: ", image.message));
  }
  encoded.resize(bytes);
  return encoded;
}

absl::Status WritePngGrid(const std::string& path, const kernels::TensorView& images, int columns) {
  TY_ASSIGN_OR_RETURN(const std::string encoded, EncodePngGrid(images, columns));
  return WriteFileAtomic(path, encoded);
}

}  // namespace trainyard::data
