#include "worker/data/loader.h"

#include <map>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/testing/status_matchers.h"
#include "base/testing/temp_dir.h"
#include "gtest/gtest.h"

namespace trainyard::data {
namespace {

using ::absl::StatusCode;
using ::testing::HasSubstr;

constexpr int kLength = 4;
constexpr int32_t kVocab = 1000;

class LoaderTest : public ::testing::Test {
 protected:
  // Token i of a split is its index there, so a window tells where it comes from. 41 + 7 + 3 tokens of training data
  // are 10 + 1 + 0 windows of 4, and 14 of validation are 3.
  void SetUp() override {
    info_.vocab_size = kVocab;
    info_.tokenizer = "bytes";
    info_.train = {Shard("train-00000.bin", 0, 41), Shard("train-00001.bin", 100, 7), Shard("train-00002.bin", 200, 3)};
    info_.validation = {Shard("validation-00000.bin", 500, 14)};
    Save();
  }

  ShardRecord Shard(const std::string& file, int32_t first, int64_t count) {
    std::vector<int32_t> tokens(static_cast<size_t>(count));
    std::iota(tokens.begin(), tokens.end(), first);
    absl::StatusOr<TokenShardWriter> writer = TokenShardWriter::Create(dir_.Join(file), kVocab);
    TY_CHECK_OK(writer);
    TY_CHECK_OK(writer->Append(tokens));
    absl::StatusOr<TokenShardInfo> info = writer->Finish();
    TY_CHECK_OK(info);
    return {file, *info};
  }
  void Save() { TY_CHECK_OK(WriteFileAtomic(dir_.Join("dataset.json"), ToJson(info_))); }

  LoaderOptions Options(int rank = 0, int world_size = 1) const {
    return {.directory = dir_.path(),
            .sequence_length = kLength,
            .rank = rank,
            .world_size = world_size,
            .seed = 42,
            .vocab_size = kVocab};
  }
  Loader Open(int rank = 0, int world_size = 1) const {
    absl::StatusOr<Loader> loader = Loader::Open(Options(rank, world_size));
    TY_CHECK_OK(loader);
    return std::move(loader).value();
  }
  // First tokens of the rows of one Next; every row must be a window with its shifted targets.
  static std::vector<int32_t> NextRows(Loader& loader, int64_t rows) {
    std::vector<int32_t> tokens(static_cast<size_t>(rows) * kLength), targets(tokens.size());
    EXPECT_OK(loader.Next({tokens.data(), kernels::DType::kI32, {rows, kLength}},
                          {targets.data(), kernels::DType::kI32, {rows, kLength}}));
    std::vector<int32_t> first;
    for (size_t row = 0; row < static_cast<size_t>(rows); ++row) {
      first.push_back(tokens[row * kLength]);
      for (size_t t = 0; t < kLength; ++t) {
        EXPECT_EQ(tokens[row * kLength + t], first.back() + static_cast<int32_t>(t));
        EXPECT_EQ(targets[row * kLength + t], first.back() + static_cast<int32_t>(t) + 1);
      }
    }
    return first;
  }

  TempDir dir_;
  DatasetInfo info_;
};

TEST_F(LoaderTest, AnEpochIsEveryWindowOnce) {
  Loader loader = Open();
  EXPECT_EQ(loader.train_windows(), 11);
  EXPECT_EQ(loader.validation_windows(), 3);
  std::vector<std::vector<int32_t>> epochs;
  for (int epoch = 0; epoch < 3; ++epoch) {
    EXPECT_EQ(loader.position(), (LoaderPosition{epoch, 0}));
    epochs.push_back(NextRows(loader, 11));
    EXPECT_THAT(epochs.back(), ::testing::UnorderedElementsAre(0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 100));
  }
  EXPECT_NE(epochs[0], epochs[1]);
  EXPECT_NE(epochs[1], epochs[2]);
}

// I22. A wrong loader drops the last part of an epoch, or starts the next one twice: 11 windows divide by no batch.
TEST_F(LoaderTest, SampleSequenceDoesNotDependOnRanksAndSkipsNothing) {
  Loader reference = Open();
  const std::vector<int32_t> expected = NextRows(reference, 144);
  for (const int world_size : {1, 2, 3, 4}) {
    for (const int64_t rows : {1, 2, 3}) {
      std::vector<Loader> ranks;
      for (int rank = 0; rank < world_size; ++rank) ranks.push_back(Open(rank, world_size));
      std::vector<int32_t> seen;
      while (seen.size() < expected.size()) {
        for (Loader& loader : ranks) {
          for (int32_t first : NextRows(loader, rows)) seen.push_back(first);
          EXPECT_EQ(loader.dataset().vocab_size, kVocab);
        }
        for (const Loader& loader : ranks) EXPECT_EQ(loader.position(), ranks[0].position());
      }
      EXPECT_EQ(seen, expected) << world_size << " ranks of " << rows << " rows";
    }
  }
}

TEST_F(LoaderTest, ARestoredLoaderGoesOnWhereTheOtherWas) {
  for (int calls = 0; calls < 12; ++calls) {
    Loader undisturbed = Open(1, 2);
    for (int i = 0; i < calls; ++i) NextRows(undisturbed, 3);
    const LoaderPosition saved = undisturbed.position();
    EXPECT_EQ(saved.epoch * 11 + saved.next_sample, calls * 6);
    Loader resumed = Open(1, 2);
    ASSERT_OK(resumed.Restore(saved));
    for (int i = 0; i < 5; ++i) EXPECT_EQ(NextRows(resumed, 3), NextRows(undisturbed, 3));
  }
}

TEST_F(LoaderTest, RefusesPositionsThatCannotBe) {
  Loader loader = Open();
  for (const LoaderPosition position : {LoaderPosition{0, 11}, LoaderPosition{-1, 0}, LoaderPosition{0, -1}}) {
    EXPECT_THAT(loader.Restore(position), StatusIs(StatusCode::kOutOfRange, HasSubstr("11 windows")));
  }
}

TEST_F(LoaderTest, FingerprintNamesDataLengthAndSeed) {
  const std::string fingerprint = Open().Fingerprint();
  EXPECT_EQ(Open(1, 2).Fingerprint(), fingerprint);
  LoaderOptions other_seed = Options(), other_length = Options();
  other_seed.seed = 43;
  other_length.sequence_length = 5;
  EXPECT_NE(Loader::Open(other_seed)->Fingerprint(), fingerprint);
  EXPECT_NE(Loader::Open(other_length)->Fingerprint(), fingerprint);
  info_.train[1] = Shard("train-00001.bin", 101, 7);
  Save();
  EXPECT_NE(Open().Fingerprint(), fingerprint);
}

TEST_F(LoaderTest, ValidationIsInFileOrderAndPadded) {
  Loader loader = Open(1, 2);
  NextRows(loader, 2);
  std::vector<int32_t> tokens(2 * kLength), targets(2 * kLength);
  const kernels::TensorView token_view(tokens.data(), kernels::DType::kI32, {2, kLength});
  const kernels::TensorView target_view(targets.data(), kernels::DType::kI32, {2, kLength});
  ASSERT_OK_AND_ASSIGN(int64_t real, loader.Validation(0, token_view, target_view));
  EXPECT_EQ(real, 2);
  EXPECT_EQ(tokens, (std::vector<int32_t>{500, 501, 502, 503, 504, 505, 506, 507}));
  ASSERT_OK_AND_ASSIGN(real, loader.Validation(2, token_view, target_view));
  EXPECT_EQ(real, 1);
  EXPECT_EQ(targets, (std::vector<int32_t>{509, 510, 511, 512, -100, -100, -100, -100}));
  EXPECT_EQ(tokens[4], 0);
  ASSERT_OK_AND_ASSIGN(real, loader.Validation(7, token_view, target_view));
  EXPECT_EQ(real, 0);
}

TEST_F(LoaderTest, TooShortAndTooLargeAreRefusedWithTheNumbers) {
  LoaderOptions options = Options();
  options.sequence_length = 41;
  EXPECT_THAT(Loader::Open(options), StatusIs(StatusCode::kFailedPrecondition, HasSubstr("42")));
  options.sequence_length = 40;  // 41 tokens make exactly one window
  ASSERT_OK_AND_ASSIGN(const Loader loader, Loader::Open(options));
  EXPECT_EQ(loader.train_windows(), 1);
  EXPECT_EQ(loader.validation_windows(), 0);
  options = Options();
  options.vocab_size = 999;
  EXPECT_THAT(Loader::Open(options), StatusIs(StatusCode::kFailedPrecondition, HasSubstr("only 999")));
  options.directory = dir_.Join("none");
  EXPECT_THAT(Loader::Open(options), StatusIs(StatusCode::kNotFound, HasSubstr("data tokenize")));
}

TEST_F(LoaderTest, DamageIsDataLossAndDoesNotMoveThePosition) {
  // The second byte of token 0 of the first shard becomes 0xFF: id 65280.
  ASSERT_OK_AND_ASSIGN(std::string bytes, ReadFile(dir_.Join("train-00000.bin")));
  bytes[65] = '\xFF';
  ASSERT_OK(WriteFileAtomic(dir_.Join("train-00000.bin"), bytes));
  Loader loader = Open();
  std::vector<int32_t> tokens(11 * kLength), targets(11 * kLength);
  EXPECT_THAT(loader.Next({tokens.data(), kernels::DType::kI32, {11 * kLength}},
                          {targets.data(), kernels::DType::kI32, {11 * kLength}}),
              StatusIs(StatusCode::kDataLoss, ::testing::AllOf(HasSubstr("train-00000.bin"), HasSubstr("65280"))));
  EXPECT_EQ(loader.position(), LoaderPosition{});
  bytes.resize(100);
  ASSERT_OK(WriteFileAtomic(dir_.Join("train-00000.bin"), bytes));
  EXPECT_THAT(Loader::Open(Options()), StatusIs(StatusCode::kDataLoss, HasSubstr("41 tokens")));
}

TEST_F(LoaderTest, AShardThatIsNotTheRecordedOneIsDataLoss) {
  Shard("train-00001.bin", 101, 7);
  EXPECT_THAT(Loader::Open(Options()), StatusIs(StatusCode::kDataLoss, HasSubstr("train-00001.bin")));
}

TEST_F(LoaderTest, ABadDatasetJsonNamesTheField) {
  const std::string good = ToJson(info_);
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    const size_t at = text.find(from);
    TY_CHECK(at != std::string::npos);
    return ParseDatasetInfo(text.replace(at, from.size(), to), "d/dataset.json");
  };
  EXPECT_OK(ParseDatasetInfo(good, "d/dataset.json"));
  EXPECT_EQ(ToJson(*ParseDatasetInfo(good, "d")), good);
  EXPECT_THAT(
      with("\"vocab_size\": 1000", "\"vocab_size\": 0"),
      StatusIs(StatusCode::kInvalidArgument, HasSubstr("d/dataset.json.vocab_size: 0 is not an integer in [1")));
  EXPECT_THAT(with("\"tokens\": 7", "\"tokens\": \"x\""),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("train[1].tokens")));
  EXPECT_THAT(with("\"train-00000.bin\"", "\"../x\""),
              StatusIs(StatusCode::kInvalidArgument, HasSubstr("\"../x\" is not a file name")));
  EXPECT_THAT(with("\"seed\"", "\"sed\""), StatusIs(StatusCode::kInvalidArgument, HasSubstr("seed: is missing")));
  EXPECT_THAT(with("\"version\": 1", "\"version\": 2"), StatusIs(StatusCode::kInvalidArgument, HasSubstr("version")));
  EXPECT_THAT(ParseDatasetInfo(good.substr(0, 50), "d"), StatusIs(StatusCode::kDataLoss, HasSubstr("not JSON")));
}

}  // namespace
}  // namespace trainyard::data
