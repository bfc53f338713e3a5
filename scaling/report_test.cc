#include "scaling/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/testing/status_matchers.h"

namespace trainyard::scaling {
namespace {

const Law kLaw = {std::log(1.3e5), 0.58, std::log(4.7e5), 0.54, std::log(1.34), 0.28};

StudyReport Report(int bootstrap) {
  std::vector<StudyRun> runs;
  for (const double n : {1e5, 2e5, 4e5}) {
    for (const double ratio : {25, 50, 100, 200}) {
      StudyRun run;
      run.recipe = "baseline";
      run.name = "s1";
      run.parameters = n;
      run.tokens = n * ratio;
      run.loss = Loss(kLaw, n, run.tokens);
      runs.push_back(run);
      run.recipe = "w4a4";
      run.bits = 4;
      run.seed = ~uint64_t{0};
      run.loss = Loss(kLaw, n, run.tokens, {0.7, 1});
      runs.push_back(run);
    }
  }
  StudyFitOptions options;
  options.bootstrap = bootstrap;
  auto fit = FitStudy(runs, options);
  EXPECT_THAT(fit, IsOk());
  StudyReport report;
  report.trainings = 26;
  report.fit = *fit;
  report.capacities["w4a4"] = 0.672;
  report.excluded.push_back({runs[1], "diverged \"NaN\"", 3.5});
  report.predictions = Predict(report.fit, 1e6, 1e8);
  return report;
}

TEST(ReportTest, ReadsWhatItWrites) {
  for (const int bootstrap : {0, 5}) {  // without: intervals are null
    const StudyReport report = Report(bootstrap);
    const std::string text = FormatReport(report);
    ASSERT_OK_AND_ASSIGN(const StudyReport read, ParseReport(text));
    EXPECT_EQ(read.trainings, 26);
    ASSERT_EQ(read.fit.recipes.size(), 1u);
    EXPECT_EQ(read.fit.recipes[0].eff.parameters, report.fit.recipes[0].eff.parameters);
    EXPECT_EQ(read.fit.recipes[0].bits, 4);
    EXPECT_EQ(read.fit.runs[20].run.seed, ~uint64_t{0});
    EXPECT_EQ(read.excluded[0].reason, "diverged \"NaN\"");
    EXPECT_EQ(read.predictions.size(), 2u);
    EXPECT_EQ(read.capacities, report.capacities);
    EXPECT_EQ(std::isnan(read.fit.recipes[0].parameters_interval.low95), bootstrap == 0);
    EXPECT_NEAR(read.fit.law.a, report.fit.law.a, 1e-12);
    ASSERT_EQ(read.fit.validation.has_value(), report.fit.validation.has_value());
    EXPECT_NEAR(report.fit.recipes[0].eff.parameters, 0.7, 1e-5);
  }
}

TEST(ReportTest, RefusesOtherText) {
  for (const char* text : {"", "{}", "[1]", "{\"partial\": 3}"}) {
    EXPECT_THAT(ParseReport(text), StatusIs(absl::StatusCode::kInvalidArgument, ::testing::HasSubstr("not a report")));
  }
}

}  // namespace
}  // namespace trainyard::scaling
