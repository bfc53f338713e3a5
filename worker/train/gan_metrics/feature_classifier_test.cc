#include "worker/train/gan_metrics/feature_classifier.h"

#include <cmath>

#include "base/file.h"
#include "base/testing/status_matchers.h"
#include "gtest/gtest.h"
#include "kernels/core/philox.h"
#include "kernels/testing/host_tensor.h"
#include "worker/data/images/image_files.h"
#include "worker/data/images/mixture.h"
#include "worker/train/gan_metrics/frechet_distance.h"

namespace trainyard::train {
namespace {

using kernels::DType;
using kernels::Stream;
using kernels::testing::HostTensor;
using ::testing::HasSubstr;

// Stripes of three directions with noise; `first` keeps sets apart.
data::ImageSet Stripes(int64_t count, uint64_t first) {
  data::RawImages images{.count = count, .channels = 1, .height = 32, .width = 32, .class_count = 3};
  for (int64_t n = 0; n < count; ++n) {
    const auto label = static_cast<int32_t>(n % 3);
    const kernels::PhiloxKey key = {.seed = first, .purpose = kernels::kRandomTest, .tensor = static_cast<uint32_t>(n)};
    const int64_t phase = kernels::RandomWord(key, 5000) % 8;
    for (int64_t i = 0; i < 1024; ++i) {
      const int64_t along = label == 0 ? i % 32 : label == 1 ? i / 32 : i % 32 + i / 32;
      const int64_t noise = kernels::RandomWord(key, static_cast<uint64_t>(i)) % 100;
      images.pixels.push_back(static_cast<uint8_t>(((along + phase) % 8 < 4 ? 40 : 110) + noise));
    }
    images.labels.push_back(label);
  }
  return data::ImageSet::Create(std::move(images)).value();
}

constexpr FeatureClassifierOptions kShort = {.features = 16, .batch = 16, .steps = 40, .threads = 2};

HostTensor FeaturesOf(FeatureClassifier& classifier, const data::SampleSource& source, int64_t count, Stream& stream) {
  const HostTensor images(DType::kF32, {count, 1, 32, 32});
  source.FillReference(0, images);
  HostTensor features(DType::kF32, {count, classifier.feature_count()});
  classifier.Features(images, features, stream);
  return features;
}

TEST(FeatureClassifierTest, LearnsAndItsFeaturesTellSetsApart) {
  Stream stream(2);
  const data::ImageSet train = Stripes(300, 1);
  const data::ImageSet test = Stripes(150, 2);
  ASSERT_OK_AND_ASSIGN(auto classifier, FeatureClassifier::Train(kShort, train, stream));
  EXPECT_GT(classifier->Accuracy(test, 150, stream), 0.95);
  // 150 is no multiple of the batch of 16.
  const HostTensor of_train = FeaturesOf(*classifier, train, 150, stream);
  const HostTensor of_test = FeaturesOf(*classifier, test, 150, stream);
  const HostTensor noise_images = HostTensor::Normal(DType::kF32, {150, 1, 32, 32}, 3, 0.3);
  const HostTensor of_noise(DType::kF32, {150, 16});
  classifier->Features(noise_images, of_noise, stream);
  ASSERT_OK_AND_ASSIGN(const double same, FrechetDistance(of_train, of_test));
  ASSERT_OK_AND_ASSIGN(const double other, FrechetDistance(of_train, of_noise));
  EXPECT_GT(other, 10 * same);
}

TEST(FeatureClassifierTest, SameBitsForAnyThreadCount) {
  const data::ImageSet set = Stripes(60, 1);
  FeatureClassifierOptions options = kShort;
  options.steps = 5;
  Stream one(1), two(2);
  ASSERT_OK_AND_ASSIGN(auto a, FeatureClassifier::Train(options, set, one));
  ASSERT_OK_AND_ASSIGN(auto b, FeatureClassifier::Train(options, set, two));
  EXPECT_EQ(FeaturesOf(*a, set, 20, one).Bytes(), FeaturesOf(*b, set, 20, two).Bytes());
}

TEST(FeatureClassifierTest, RefusesWhatIsNoLabelledImage) {
  Stream stream(1);
  EXPECT_THAT(FeatureClassifier::Train(kShort, data::GaussianMixture::Ring(), stream),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("32 x 32")));
  data::RawImages unlabelled{
      .count = 1, .channels = 1, .height = 32, .width = 32, .pixels = std::vector<uint8_t>(1024)};
  EXPECT_THAT(FeatureClassifier::Train(kShort, data::ImageSet::Create(unlabelled).value(), stream),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("labels")));
}

// The real files, where their package is installed: a short training is well above the 10 % of guessing.
TEST(FeatureClassifierTest, FashionMnist) {
  const std::string folder = "/usr/share/datasets/fashion-mnist/t10k-";
  if (!FileExists(folder + "images-idx3-ubyte.gz")) GTEST_SKIP() << "no package dataset-fashion-mnist";
  ASSERT_OK_AND_ASSIGN(const data::ImageSet set, data::OpenImages({.paths = {folder + "images-idx3-ubyte.gz"},
                                                                   .labels_path = folder + "labels-idx1-ubyte.gz"}));
  Stream stream(2);
  ASSERT_OK_AND_ASSIGN(auto classifier,
                       FeatureClassifier::Train({.batch = 32, .steps = 100, .threads = 2}, set, stream));
  EXPECT_GT(classifier->Accuracy(set, 1000, stream), 0.7);
}

}  // namespace
}  // namespace trainyard::train
