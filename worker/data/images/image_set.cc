#include "worker/data/images/image_set.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/digest.h"
#include "worker/data/permutation.h"

namespace trainyard::data {
namespace {

constexpr float kBlack = -1.0f;

std::string FingerprintOf(const RawImages& images) {
  Digest digest;
  const int64_t shape[] = {images.count, images.channels, images.height, images.width, images.class_count};
  digest.Update(shape, sizeof(shape));
  digest.Update(images.pixels.data(), images.pixels.size());
  digest.Update(images.labels.data(), images.labels.size() * sizeof(int32_t));
  return absl::StrCat("images ", digest.Hex());
}

}  // namespace

absl::StatusOr<ImageSet> ImageSet::Create(RawImages images) {
  if (images.count == 0) return absl::InvalidArgumentError("no images");
  return ImageSet(std::move(images));
}

ImageSet::ImageSet(RawImages images) : raw_(std::move(images)), fingerprint_(FingerprintOf(raw_)) {
  TY_CHECK(raw_.channels == 1 || raw_.channels == 3);
  TY_CHECK_GE(raw_.height, 1);
  TY_CHECK_GE(raw_.width, 1);
  TY_CHECK_LE(raw_.height, kImageExtent);
  TY_CHECK_LE(raw_.width, kImageExtent);
  TY_CHECK_EQ(raw_.pixels.size(), static_cast<size_t>(raw_.count * raw_.channels * raw_.height * raw_.width));
  TY_CHECK_EQ(raw_.labels.size(), raw_.class_count > 0 ? static_cast<size_t>(raw_.count) : size_t{0});
}

void ImageSet::Draw(uint64_t seed, int64_t sample, float* values, int32_t* label) const {
  const Permutation order(raw_.count, seed, static_cast<uint32_t>(sample / raw_.count));
  Reference(order(sample % raw_.count), values, label);
}

void ImageSet::Reference(int64_t index, float* values, int32_t* label) const {
  const int64_t top = (kImageExtent - raw_.height) / 2;
  const int64_t left = (kImageExtent - raw_.width) / 2;
  const uint8_t* from = raw_.pixels.data() + index * raw_.channels * raw_.height * raw_.width;
  if (raw_.height < kImageExtent || raw_.width < kImageExtent) {
    std::fill_n(values, raw_.channels * kImageExtent * kImageExtent, kBlack);
  }
  for (int64_t c = 0; c < raw_.channels; ++c) {
    for (int64_t y = 0; y < raw_.height; ++y) {
      float* to = values + (c * kImageExtent + top + y) * kImageExtent + left;
      for (int64_t x = 0; x < raw_.width; ++x) to[x] = static_cast<float>(*from++) / 127.5f - 1.0f;
    }
  }
  if (label != nullptr && !raw_.labels.empty()) *label = raw_.labels[static_cast<size_t>(index)];
}

}  // namespace trainyard::data
