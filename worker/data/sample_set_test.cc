#include "worker/data/sample_set.h"

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
using ::testing::IsEmpty;

class SampleSetTest : public ::testing::Test {
 protected:
  absl::StatusOr<SampleSetReport> Build(const std::string& lines, double validation_fraction = 0) {
    TY_CHECK_OK(WriteFileAtomic(dir_.Join("in.jsonl"), lines));
    return BuildSampleSet({.inputs = {dir_.Join("in.jsonl")},
                           .output = dir_.Join("set"),
                           .validation_fraction = validation_fraction,
                           .overwrite = true});
  }
  SampleSet Open() {
    absl::StatusOr<SampleSet> set = SampleSet::Open(dir_.Join("set"));
    TY_CHECK_OK(set);
    return *std::move(set);
  }

  TempDir dir_;
};

TEST_F(SampleSetTest, TextIsAllLabelsAndAPromptIsNone) {
  ASSERT_OK_AND_ASSIGN(const SampleSetReport report, Build(R"({"id": "a", "source": "s", "text": "xyz"}
{"id": 7, "prompt": "ab", "response": "c"}
)"));
  EXPECT_EQ(report.damaged_count, 0);
  EXPECT_EQ(report.info.sample_count, 2);
  EXPECT_THAT(report.info.sources, ElementsAre(std::pair("", 1), std::pair("s", 1)));
  const SampleSet set = Open();
  ASSERT_EQ(set.size(), 2);
  EXPECT_EQ(set.record(0).id, "a");
  EXPECT_EQ(set.record(0).source, "s");
  EXPECT_THAT(*set.Tokens(0, 100), ElementsAre('x', 'y', 'z', 256));
  EXPECT_EQ(set.record(0).label_begin, 1);
  EXPECT_EQ(set.record(0).LabelCount(100), 3);
  EXPECT_EQ(set.record(0).LabelCount(2), 2);  // a row of two positions predicts two of them
  EXPECT_EQ(set.record(1).id, "7");
  EXPECT_THAT(*set.Tokens(1, 3), ElementsAre('a', 'b', 'c'));
  EXPECT_EQ(set.record(1).label_begin, 2);
  EXPECT_EQ(set.record(1).LabelCount(1), 0);
  EXPECT_EQ(set.record(1).weight, 1);
}

TEST_F(SampleSetTest, DamagedAndEmptyLinesAreCountedWithTheirNumbers) {
  ASSERT_OK_AND_ASSIGN(const SampleSetReport report, Build(R"({"id": "a", "text": "x"}

not json
{"id": "a", "text": "again"}
{"text": 5}
{"prompt": "p"}
{"text": "t", "prompt": "p"}
{"id": "b", "text": "y"}
)"));
  EXPECT_EQ(report.info.sample_count, 2);
  EXPECT_EQ(report.empty_line_count, 1);
  EXPECT_EQ(report.damaged_count, 5);
  EXPECT_THAT(report.damaged,
              ElementsAre(HasSubstr("in.jsonl:3: is not a JSON object"), HasSubstr(":4: the id \"a\" was there before"),
                          HasSubstr(":5: \"text\" is not a string"), HasSubstr(":6: has neither"),
                          HasSubstr(":7: has \"text\" and")));
  EXPECT_THAT(Build("\n[1]\n"), StatusIs(StatusCode::kInvalidArgument, HasSubstr(":2: is not a JSON object")));
  EXPECT_THAT(Build(""), StatusIs(StatusCode::kInvalidArgument, HasSubstr("no sample")));
}

TEST_F(SampleSetTest, SamplesWithoutLabelsAreKeptAndCounted) {
  ASSERT_OK_AND_ASSIGN(const SampleSetReport report, Build(R"({"id": "a", "prompt": "abc", "response": ""}
{"id": "b", "text": ""}
{"id": "c", "prompt": "", "response": "r"}
)"));
  EXPECT_EQ(report.info.unlabelled_count, 2);
  const SampleSet set = Open();
  EXPECT_EQ(set.record(0).length, 3);
  EXPECT_EQ(set.record(0).LabelCount(100), 0);
  EXPECT_EQ(set.record(1).length, 0);
  EXPECT_EQ(set.record(1).LabelCount(100), 0);
  EXPECT_EQ(set.record(2).LabelCount(100), 1);  // the first token of all is predicted by nothing
}

TEST_F(SampleSetTest, IdsThatAreNotGivenDoNotDependOnTheOrder) {
  ASSERT_OK(Build("{\"text\": \"one\"}\n{\"text\": \"two\"}\n{\"text\": \"one\"}\n").status());
  const SampleSet first = Open();
  const std::string one = first.record(0).id, two = first.record(1).id, copy = first.record(2).id;
  EXPECT_NE(one, two);
  EXPECT_EQ(copy, one + "-2");
  ASSERT_OK(Build("{\"text\": \"two\"}\n{\"text\": \"one\"}\n").status());
  const SampleSet second = Open();
  EXPECT_EQ(second.record(0).id, two);
  EXPECT_EQ(second.record(1).id, one);
  EXPECT_EQ(*second.ContentDigest(0), *first.ContentDigest(1));
  EXPECT_NE(*second.ContentDigest(0), *second.ContentDigest(1));
}

TEST_F(SampleSetTest, ValidationIsAShareOfTheSamples) {
  std::string lines;
  for (int i = 0; i < 400; ++i) lines += "{\"id\": \"" + std::to_string(i) + "\", \"text\": \"t\"}\n";
  ASSERT_OK_AND_ASSIGN(const SampleSetReport report, Build(lines, 0.25));
  EXPECT_NEAR(static_cast<double>(report.validation_count), 100, 35);  // four standard deviations
  int64_t count = 0;
  const SampleSet set = Open();
  for (int64_t i = 0; i < set.size(); ++i) count += set.record(i).split == Split::kValidation ? 1 : 0;
  EXPECT_EQ(count, report.validation_count);
  EXPECT_THAT(Build(lines, 0.6), StatusIs(StatusCode::kInvalidArgument, HasSubstr("0.6 not in [0, 0.5]")));
}

TEST_F(SampleSetTest, DamageIsFound) {
  const auto build = [&] { return Build("{\"text\": \"hello\"}\n{\"text\": \"yard\"}\n").status(); };
  ASSERT_OK(build());
  ASSERT_OK_AND_ASSIGN(const std::string index, ReadFile(dir_.Join("set/samples.jsonl")));
  ASSERT_OK(WriteFileAtomic(dir_.Join("set/samples.jsonl"), index.substr(1)));
  EXPECT_THAT(SampleSet::Open(dir_.Join("set")), StatusIs(StatusCode::kDataLoss, HasSubstr("samples.jsonl")));
  ASSERT_OK(build());
  ASSERT_OK(WriteFileAtomic(dir_.Join("set/tokens-00000.bin"), "short"));
  EXPECT_THAT(SampleSet::Open(dir_.Join("set")), StatusIs(StatusCode::kDataLoss, HasSubstr("tokens-00000.bin")));
  ASSERT_OK(build());
  ASSERT_OK(WriteFileAtomic(dir_.Join("set/samples.json"), "{\"format\": \"other\"}"));
  EXPECT_THAT(SampleSet::Open(dir_.Join("set")), StatusIs(StatusCode::kInvalidArgument, HasSubstr("format")));
  EXPECT_THAT(SampleSet::Open(dir_.Join("none")), StatusIs(StatusCode::kNotFound, HasSubstr("data samples")));
}

TEST_F(SampleSetTest, ASelectionKeepsWeightsScoresAndProvenance) {
  {
    ASSERT_OK_AND_ASSIGN(SampleSetWriter writer, SampleSetWriter::Create(dir_.Join("set"), 300, 256, "{}"));
    ASSERT_OK(writer.Add({.id = "x", .source = "s", .weight = 1.5, .score = -0.25, .round = 3},
                         std::vector<int32_t>{1, 2, 299}));
    ASSERT_OK(writer.Add({.id = "v", .split = Split::kValidation}, std::vector<int32_t>{4, 5}));
    EXPECT_THAT(writer.Add({.id = "x"}, std::vector<int32_t>{1, 2}),
                StatusIs(StatusCode::kInvalidArgument, HasSubstr("was there before")));
    EXPECT_THAT(writer.Add({.id = "y"}, std::vector<int32_t>{300}),
                StatusIs(StatusCode::kInvalidArgument, HasSubstr("300")));
    ASSERT_OK(
        writer.Finish({.method = "influence", .job_uid = "u", .pool_fingerprint = "p", .pool_samples = 9}).status());
  }
  const SampleSet set = Open();
  ASSERT_EQ(set.size(), 2);
  EXPECT_EQ(set.record(0).weight, 1.5);
  EXPECT_EQ(set.record(0).score, -0.25);
  EXPECT_EQ(set.record(0).round, 3);
  EXPECT_EQ(set.record(1).split, Split::kValidation);
  EXPECT_EQ(set.info().provenance.method, "influence");
  EXPECT_EQ(set.info().provenance.job_uid, "u");
  EXPECT_EQ(set.info().provenance.pool_samples, 9);
}

}  // namespace
}  // namespace trainyard::data
