#include "worker/data/sample_loader.h"

#include <algorithm>
#include <map>

#include "base/file.h"
#include "base/testing/status_matchers.h"
#include "base/testing/temp_dir.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/data/sample_set_builder.h"

namespace trainyard::data {
namespace {

using ::absl::StatusCode;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int kLength = 4;

class SampleLoaderTest : public ::testing::Test {
 protected:
  // Sample i is the token 10 + i, twice, then 100, with labels from 1 on: rows tell where they come from.
  void Write(int count, const std::vector<double>& weights = {}) {
    absl::StatusOr<SampleSetWriter> writer = SampleSetWriter::Create(dir_.path(), 257, 256, "{}");
    TY_CHECK_OK(writer);
    for (int i = 0; i < count; ++i) {
      SampleRecord record;
      record.id = std::to_string(i);
      if (!weights.empty()) record.weight = weights[static_cast<size_t>(i)];
      TY_CHECK_OK(writer->Add(record, std::vector<int32_t>{10 + i, 10 + i, 100}));
    }
    SampleRecord validation;
    validation.id = "v";
    validation.split = Split::kValidation;
    validation.label_begin = 2;
    TY_CHECK_OK(writer->Add(validation, std::vector<int32_t>{1, 2, 3, 4, 5, 6}));
    TY_CHECK_OK(writer->Finish({.method = "random"}).status());
  }
  std::unique_ptr<SampleLoader> Open(int rank = 0, int ranks = 1) {
    absl::StatusOr<std::unique_ptr<SampleLoader>> loader = SampleLoader::Open({.directory = dir_.path(),
                                                                               .sequence_length = kLength,
                                                                               .rank = rank,
                                                                               .world_size = ranks,
                                                                               .seed = 3,
                                                                               .vocab_size = 257});
    TY_CHECK_OK(loader);
    return *std::move(loader);
  }

  struct Rows {
    explicit Rows(int64_t rows)
        : tokens(static_cast<size_t>(rows * kLength)), targets(tokens), weights(tokens.size()) {}
    BatchViews views() {
      const auto rows = static_cast<int64_t>(tokens.size()) / kLength;
      return {{tokens.data(), kernels::DType::kI32, {rows, kLength}},
              {targets.data(), kernels::DType::kI32, {rows, kLength}},
              {weights.data(), kernels::DType::kF32, {rows * kLength}}};
    }
    std::vector<int32_t> tokens, targets;
    std::vector<float> weights;
  };
  static std::vector<int32_t> FirstTokens(SampleLoader& loader, int64_t count) {
    Rows rows(count);
    EXPECT_OK(loader.NextBatch(rows.views()));
    std::vector<int32_t> first;
    for (size_t i = 0; i < rows.tokens.size(); i += kLength) first.push_back(rows.tokens[i]);
    return first;
  }

  TempDir dir_;
};

TEST_F(SampleLoaderTest, ARowIsOneSamplePaddedAndWeighted) {
  Write(1);
  Rows rows(1);
  ASSERT_OK(Open()->NextBatch(rows.views()));
  EXPECT_THAT(rows.tokens, ElementsAre(10, 10, 100, 0));
  EXPECT_THAT(rows.targets, ElementsAre(10, 100, kIgnoredTarget, kIgnoredTarget));
  EXPECT_THAT(rows.weights, ElementsAre(2, 2, 2, 2));  // 1 * length 4 / 2 labels
}

TEST_F(SampleLoaderTest, WeightsHaveMeanOneAndZeroLeavesASampleOut) {
  Write(3, {3, 0, 1});
  const std::unique_ptr<SampleLoader> loader = Open();
  EXPECT_EQ(loader->train_rows(), 2);
  Rows rows(2);
  ASSERT_OK(loader->NextBatch(rows.views()));
  std::map<int32_t, float> weights;
  for (size_t i = 0; i < 2; ++i) weights[rows.tokens[i * kLength]] = rows.weights[i * kLength];
  EXPECT_EQ(weights, (std::map<int32_t, float>{{10, 3.0f}, {12, 1.0f}}));  // 2 * 1.5 and 2 * 0.5
}

TEST_F(SampleLoaderTest, AnEpochIsEverySampleOnceForAnyNumberOfRanks) {
  Write(11);
  const std::unique_ptr<SampleLoader> reference = Open();
  const std::vector<int32_t> expected = FirstTokens(*reference, 44);
  for (size_t epoch = 0; epoch < 4; ++epoch) {
    std::vector<int32_t> one(expected.begin() + static_cast<int64_t>(epoch) * 11,
                             expected.begin() + static_cast<int64_t>(epoch + 1) * 11);
    std::sort(one.begin(), one.end());
    EXPECT_THAT(one, ElementsAre(10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20));
  }
  for (const int ranks : {1, 2, 4}) {
    std::vector<std::unique_ptr<SampleLoader>> loaders;
    for (int rank = 0; rank < ranks; ++rank) loaders.push_back(Open(rank, ranks));
    std::vector<int32_t> seen;
    while (seen.size() < expected.size()) {
      for (const auto& loader : loaders) {
        for (const int32_t first : FirstTokens(*loader, 3)) seen.push_back(first);
      }
    }
    seen.resize(expected.size());
    EXPECT_EQ(seen, expected) << ranks;
  }
}

TEST_F(SampleLoaderTest, ARestoredLoaderGoesOnWhereTheOtherWas) {
  Write(7);
  const std::unique_ptr<SampleLoader> first = Open(1, 2);
  FirstTokens(*first, 3);
  const std::unique_ptr<SampleLoader> second = Open(1, 2);
  ASSERT_OK(second->Restore(first->position()));
  EXPECT_EQ(FirstTokens(*second, 5), FirstTokens(*first, 5));
  EXPECT_THAT(second->Restore({0, 7}), StatusIs(StatusCode::kOutOfRange, HasSubstr("7 samples")));
}

TEST_F(SampleLoaderTest, ValidationCountsEachLabelOnce) {
  Write(2);
  const std::unique_ptr<SampleLoader> loader = Open();
  EXPECT_EQ(loader->validation_rows(), 1);
  Rows rows(2);
  ASSERT_OK_AND_ASSIGN(const int64_t real, loader->ValidationBatch(0, rows.views()));
  EXPECT_EQ(real, 1);
  EXPECT_THAT(rows.tokens, ElementsAre(1, 2, 3, 4, 0, 0, 0, 0));  // cut to the length
  EXPECT_THAT(rows.targets,
              ElementsAre(kIgnoredTarget, 3, 4, 5, kIgnoredTarget, kIgnoredTarget, kIgnoredTarget, kIgnoredTarget));
  EXPECT_EQ(rows.weights[0], 1);
}

TEST_F(SampleLoaderTest, SetsWithNothingToLearnAreRefused) {
  Write(2, {0, 0});
  const LoaderOptions options{.directory = dir_.path(), .sequence_length = kLength, .vocab_size = 257};
  EXPECT_THAT(SampleLoader::Open(options),
              StatusIs(StatusCode::kFailedPrecondition, HasSubstr("none of its 3 samples")));
  LoaderOptions small = options;
  small.vocab_size = 256;
  EXPECT_THAT(SampleLoader::Open(small), StatusIs(StatusCode::kFailedPrecondition, HasSubstr("only 256")));
}

}  // namespace
}  // namespace trainyard::data
