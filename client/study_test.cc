#include "client/study.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <sstream>

#include "base/file.h"
#include "base/testing/status_matchers.h"
#include "base/testing/temp_dir.h"
#include "client/cli.h"

namespace trainyard::client {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

struct Output {
  int code = 0;
  std::string out, err;
};

Output Trainyard(std::vector<std::string> args) {
  std::ostringstream out, err;
  Environment env;
  env.out = &out;
  env.err = &err;
  env.get_env = [](const char*) -> const char* { return nullptr; };
  env.clock = RealClock();
  Output output;
  output.code = RunCli(args, env);
  output.out = out.str();
  output.err = err.str();
  return output;
}

constexpr char kQuartet[] = "scaling/testdata/quartet.tsv";

TEST(StudyCommandTest, FitsPublishedLossesWithoutAService) {
  const Output fit = Trainyard({"study", "fit", kQuartet, "--bootstrap", "0", "--predict", "102777856:10277785600",
                                "--budget", "1e9:1e12", "--plot"});
  EXPECT_EQ(fit.code, kExitOk) << fit.err;
  EXPECT_THAT(fit.out, AllOf(HasSubstr("^gamma + E"), HasSubstr("cost 2.1292"), HasSubstr("0.6452"),
                             HasSubstr("0.9281"), HasSubstr("2.8861"), HasSubstr("2.32704"), HasSubstr("log10 N")));
}

TEST(StudyCommandTest, WritesTheReportAsJson) {
  const Output fit = Trainyard({"study", "fit", kQuartet, "--bootstrap", "0", "-o", "json"});
  ASSERT_EQ(fit.code, kExitOk) << fit.err;
  ASSERT_OK_AND_ASSIGN(const scaling::StudyReport report, scaling::ParseReport(fit.out));
  ASSERT_EQ(report.fit.recipes.size(), 3u);
  EXPECT_EQ(report.fit.recipes[0].name, "mxfp4-forward");
  EXPECT_NEAR(report.fit.recipes[0].eff.parameters, 0.64516, 5e-4);
}

TEST(StudyCommandTest, SaysWhatIsWrong) {
  TempDir dir;
  ASSERT_OK(WriteFileAtomic(dir.Join("runs.tsv"), "recipe\tparameters\ttokens\tloss\nbaseline\t1e6\t1e8\t3\n"));
  const Output few = Trainyard({"study", "fit", dir.Join("runs.tsv")});
  EXPECT_EQ(few.code, kExitFailedCall);
  EXPECT_THAT(few.err, HasSubstr("the baseline has 1 different pairs"));
  ASSERT_OK(WriteFileAtomic(dir.Join("bad.tsv"), "recipe\tparameters\ttokens\tloss\nbaseline\t1e6\t1e8\tx\n"));
  EXPECT_THAT(Trainyard({"study", "fit", dir.Join("bad.tsv")}).err, HasSubstr("bad.tsv: line 2, loss: 'x'"));
  EXPECT_EQ(Trainyard({"study", "fit", dir.Join("none.tsv")}).code, kExitNotFound);
  const Output point = Trainyard({"study", "fit", kQuartet, "--bootstrap", "0", "--predict", "1e9"});
  EXPECT_NE(point.code, kExitOk);
  EXPECT_THAT(point.err, HasSubstr("--predict 1e9: not PARAMETERS:TOKENS"));
  EXPECT_EQ(Trainyard({"study", "fit", kQuartet, "--form", "cubic"}).code, kExitUsage);
  EXPECT_EQ(Trainyard({"study"}).code, kExitUsage);
}

TEST(StudyTablesTest, TellWhatWasLeftOut) {
  scaling::StudyReport report;
  report.is_partial = true;
  report.trainings = 12;
  report.fit.law = {1, 0.5, 1, 0.5, 0, 0.5};
  scaling::RecipeFit recipe;
  recipe.name = "w1a1";
  recipe.bits = 1;
  recipe.eff = {0.02, 1};
  recipe.parameters_interval = {0.015, 0.025, 0.01, 0.03};
  report.fit.recipes.push_back(recipe);
  report.capacities["w1a1"] = 0.032;
  scaling::ExcludedRun excluded;
  excluded.run.recipe = "w1a1";
  excluded.run.name = "large";
  excluded.run.tokens = 1e8;
  excluded.reason = "FAILED: NAN";
  excluded.loss_at_least = 4.25;
  report.excluded.push_back(excluded);
  report.fit.notes.push_back("Only two sizes.");
  EXPECT_THAT(StudyTables(report),
              AllOf(HasSubstr("Partial: 1 of 12"), HasSubstr("0.01 .. 0.03"), HasSubstr("0.032"), HasSubstr("4.25"),
                    HasSubstr("FAILED: NAN"), HasSubstr("upper bound"), HasSubstr("Note: Only two sizes.")));
}

}  // namespace
}  // namespace trainyard::client
