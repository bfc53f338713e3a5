// A set of images in memory, as bytes; given out as f32 (channels, 32, 32) in [-1, 1]: value / 127.5 - 1.
// Images smaller than 32 x 32 (28 x 28 of the MNIST family) are put in the middle of a black (-1) frame.
//
// Epoch e is a permutation of all images, keyed by (seed, e).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/data/images/sample_source.h"

namespace trainyard::data {

inline constexpr int64_t kImageExtent = 32;

// Pixels as they come from files.
struct RawImages {
  int64_t count = 0;
  int64_t channels = 0;  // 1 or 3
  int64_t height = 0;    // 1 .. 32, as is width
  int64_t width = 0;
  std::vector<uint8_t> pixels = {};  // (count, channels, height, width)
  std::vector<int32_t> labels = {};  // count, or none
  int class_count = 0;               // 0 without labels
};

class ImageSet final : public SampleSource {
 public:
  // InvalidArgument for an empty set.
  static absl::StatusOr<ImageSet> Create(RawImages images);

  std::vector<int64_t> sample_shape() const override { return {raw_.channels, kImageExtent, kImageExtent}; }
  int64_t count() const override { return raw_.count; }
  int class_count() const override { return raw_.class_count; }
  int64_t channels() const { return raw_.channels; }
  std::string Fingerprint() const override { return fingerprint_; }

 private:
  explicit ImageSet(RawImages images);
  void Draw(uint64_t seed, int64_t sample, float* values, int32_t* label) const override;
  void Reference(int64_t index, float* values, int32_t* label) const override;

  RawImages raw_;
  std::string fingerprint_;
};

}  // namespace trainyard::data
