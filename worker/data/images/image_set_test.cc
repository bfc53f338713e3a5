#include "worker/data/images/image_set.h"

#include <map>
#include <set>

#include "base/testing/status_matchers.h"
#include "gtest/gtest.h"
#include "kernels/testing/host_tensor.h"

namespace trainyard::data {
namespace {

using kernels::DType;
using kernels::testing::HostTensor;

// Image i is of the one shade i, with label i % 3.
RawImages Shades(int64_t count, int64_t extent) {
  RawImages images{.count = count, .channels = 1, .height = extent, .width = extent, .class_count = 3};
  for (int64_t i = 0; i < count; ++i) {
    images.pixels.insert(images.pixels.end(), static_cast<size_t>(extent * extent), static_cast<uint8_t>(i));
    images.labels.push_back(static_cast<int32_t>(i % 3));
  }
  return images;
}

int Shade(float value) {
  return static_cast<int>((value + 1) * 127.5f + 0.5f);
}

// Shades of a rank's batch, by their middle pixels.
std::vector<int> BatchShades(const ImageSet& set, const BatchKey& key, int64_t rows) {
  const HostTensor samples(DType::kF32, {rows, 1, 32, 32});
  const HostTensor labels(DType::kI32, {rows});
  set.FillBatch(key, samples, labels);
  std::vector<int> shades;
  for (int64_t i = 0; i < rows; ++i) {
    shades.push_back(Shade(samples.as<float>()[i * 1024 + 16 * 32 + 16]));
    EXPECT_EQ(labels.as<int32_t>()[i], shades.back() % 3);
  }
  return shades;
}

TEST(ImageSetTest, ScalesAndPadsWithBlack) {
  ASSERT_OK_AND_ASSIGN(const ImageSet set, ImageSet::Create(Shades(256, 28)));
  EXPECT_EQ(set.sample_shape(), (std::vector<int64_t>{1, 32, 32}));
  const HostTensor sample(DType::kF32, {1, 1, 32, 32});
  for (const int shade : {0, 51, 255}) {
    set.FillReference(shade, sample);
    for (int64_t y = 0; y < 32; ++y) {
      for (int64_t x = 0; x < 32; ++x) {
        const bool is_inside = y >= 2 && y < 30 && x >= 2 && x < 30;
        const float expected = is_inside ? static_cast<float>(shade) / 127.5f - 1.0f : -1.0f;
        ASSERT_EQ(sample.as<float>()[y * 32 + x], expected) << x << "," << y;
      }
    }
  }
}

TEST(ImageSetTest, AnEpochIsAPermutationAndBatchesRunOverItsEnd) {
  ASSERT_OK_AND_ASSIGN(const ImageSet set, ImageSet::Create(Shades(10, 32)));
  std::vector<int> sequence;
  for (int64_t step = 0; step < 10; ++step) {
    for (int shade : BatchShades(set, {.seed = 7, .step = step}, 3)) sequence.push_back(shade);
  }
  for (size_t epoch = 0; epoch < 3; ++epoch) {
    const auto begin = sequence.begin() + static_cast<int64_t>(10 * epoch);
    EXPECT_EQ(std::set<int>(begin, begin + 10).size(), 10u) << "epoch " << epoch;
  }
  EXPECT_NE(std::vector<int>(sequence.begin(), sequence.begin() + 10),
            std::vector<int>(sequence.begin() + 10, sequence.begin() + 20))
      << "epochs have orders of their own";
  EXPECT_NE(BatchShades(set, {.seed = 8}, 10), BatchShades(set, {.seed = 7}, 10));
}

TEST(ImageSetTest, RanksShareOneSequenceWhateverTheirNumber) {
  ASSERT_OK_AND_ASSIGN(const ImageSet set, ImageSet::Create(Shades(29, 32)));
  for (int64_t step = 0; step < 5; ++step) {
    const std::vector<int> alone = BatchShades(set, {.seed = 3, .step = step}, 12);
    for (const int ranks : {2, 3, 4}) {
      std::vector<int> together;
      for (int rank = 0; rank < ranks; ++rank) {
        for (int shade : BatchShades(set, {.seed = 3, .step = step, .rank = rank, .world_size = ranks}, 12 / ranks)) {
          together.push_back(shade);
        }
      }
      EXPECT_EQ(together, alone) << ranks << " ranks";
    }
  }
}

TEST(ImageSetTest, FingerprintTellsSetsApart) {
  ASSERT_OK_AND_ASSIGN(const ImageSet set, ImageSet::Create(Shades(5, 32)));
  ASSERT_OK_AND_ASSIGN(const ImageSet same, ImageSet::Create(Shades(5, 32)));
  RawImages changed = Shades(5, 32);
  changed.labels[2] = 0;
  ASSERT_OK_AND_ASSIGN(const ImageSet other, ImageSet::Create(changed));
  EXPECT_EQ(set.Fingerprint(), same.Fingerprint());
  EXPECT_NE(set.Fingerprint(), other.Fingerprint());
}

TEST(ImageSetTest, RefusesAnEmptySet) {
  EXPECT_THAT(ImageSet::Create(RawImages{.channels = 1, .height = 32, .width = 32}),
              StatusIs(absl::StatusCode::kInvalidArgument, "no images"));
}

}  // namespace
}  // namespace trainyard::data
