#include "scaling/run_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/testing/status_matchers.h"

namespace trainyard::scaling {
namespace {

using ::testing::HasSubstr;

TEST(RunTableTest, KeepsEveryBit) {
  StudyRun run;
  run.recipe = "w4a4";
  run.name = "30M";
  run.parameters = 30482560;
  run.tokens = 1e9 / 3;
  run.loss = 3.4157100000000001;
  run.seed = ~uint64_t{0};
  run.acts_on = ActsOn::kBoth;
  run.bits = 4;
  ASSERT_OK_AND_ASSIGN(const std::vector<StudyRun> runs, ParseRuns(FormatRuns({run})));
  ASSERT_EQ(runs.size(), 1u);
  EXPECT_EQ(runs[0].recipe, run.recipe);
  EXPECT_EQ(runs[0].name, run.name);
  EXPECT_EQ(runs[0].parameters, run.parameters);
  EXPECT_EQ(runs[0].tokens, run.tokens);
  EXPECT_EQ(runs[0].loss, run.loss);
  EXPECT_EQ(runs[0].seed, run.seed);
  EXPECT_EQ(runs[0].acts_on, run.acts_on);
  EXPECT_EQ(runs[0].bits, run.bits);
}

TEST(RunTableTest, NamesTheLineAndTheColumn) {
  const std::string head = "# a comment\nrecipe\tparameters\ttokens\tloss\n";
  EXPECT_THAT(ParseRuns(head + "baseline\t1e6\t1e8\t-3\n"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("line 3, loss: '-3' is not a number above 0")));
  EXPECT_THAT(ParseRuns(head + "baseline\t1e6\tnan\t3\n"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("line 3, tokens")));
  EXPECT_THAT(ParseRuns(head + "baseline\t1e6\t1e8\n"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("line 3: 3 columns, the first line names 4")));
  EXPECT_THAT(ParseRuns(head + "\t1e6\t1e8\t3\n"), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("recipe")));
  EXPECT_THAT(ParseRuns("recipe\tparameters\ttokens\n"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("no column 'loss'")));
  EXPECT_THAT(ParseRuns("recipe\tparameters\ttokens\tlos\n"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("column 'los' is unknown")));
  EXPECT_THAT(ParseRuns(head), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("has no runs")));
  EXPECT_THAT(ParseRuns("recipe\tparameters\ttokens\tloss\tacts_on\na\t1\t2\t3\ttokens\na\t1\t2\t3\tboth\n"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("line 3: acts_on or bits differ")));
}

}  // namespace
}  // namespace trainyard::scaling
