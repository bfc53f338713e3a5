// What is drawn on terminals, and settings.
#include <cmath>
#include <limits>

#include "absl/strings/str_split.h"
#include "base/file.h"
#include "base/testing/status_matchers.h"
#include "base/testing/temp_dir.h"
#include "client/plot.h"
#include "client/progress_line.h"
#include "client/settings.h"
#include "gmock/gmock.h"

namespace trainyard::client {
namespace {

using ::testing::HasSubstr;

std::vector<std::string> Lines(const std::string& text) {
  return absl::StrSplit(text, '\n');
}

// Worked out by hand: the corners of the canvas and nothing off the diagonal.
TEST(Plot, ALineGoesFromCornerToCorner) {
  std::vector<PlotPoint> points;
  for (int i = 0; i <= 100; ++i) points.push_back({static_cast<double>(i), static_cast<double>(i)});
  EXPECT_EQ(Plot(points, {.title = "t", .width = 30, .height = 4, .unicode = false}),
            "t\n"
            "      100 +              *****\n"
            "          |         ******\n"
            "          |    ******\n"
            "        0 +*****\n"
            "          +-------------------\n"
            "           0          100 step\n");
}

TEST(Plot, BrailleDotsAreInTheRightPlace) {
  const auto lines = Lines(Plot({{0, 1}, {1, 0}}, {.title = "", .width = 30, .height = 3}));
  // Highest dot of the first column, lowest of the last.
  EXPECT_THAT(lines[0], HasSubstr("1 \u2524\u2809"));
  EXPECT_THAT(lines[2], testing::EndsWith("\u28C0"));
}

TEST(Plot, NumbersThatAreNotFiniteAreLeftOut) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double inf = std::numeric_limits<double>::infinity();
  const PlotOptions options = {.title = "", .width = 40, .height = 5};
  EXPECT_EQ(Plot({{0, 1}, {1, nan}, {2, 3}, {3, inf}, {inf, 2}}, options), Plot({{0, 1}, {2, 3}}, options));
  EXPECT_EQ(Plot({{0, nan}}, options), "(no points)\n");
  EXPECT_EQ(Plot({}, options), "(no points)\n");
}

TEST(Plot, OnePointFlatLinesAndHugeRangesHaveAxes) {
  for (const std::vector<PlotPoint>& points :
       {std::vector<PlotPoint>{{5, 2}}, {{0, 0}, {1, 0}}, {{0, 7}, {9, 7}}, {{0, -1e300}, {1, 1e300}}, {{0, 1e-300}}}) {
    const std::string plot = Plot(points, {.title = "", .width = 10, .height = 1});
    EXPECT_EQ(Lines(plot).size(), 6u) << plot;  // three rows, axis, labels, the end
    EXPECT_THAT(plot, HasSubstr("step"));
  }
}

TEST(Plot, ManyPointsInAColumnBecomeTheirMean) {
  std::vector<PlotPoint> points;
  for (int i = 0; i < 10'000; ++i) points.push_back({static_cast<double>(i), i % 2 == 0 ? 1.0 : 3.0});
  // The mean is 2 everywhere, so only the middle row of five has dots.
  const auto lines = Lines(Plot(points, {.title = "", .width = 40, .height = 5, .unicode = false}));
  EXPECT_THAT(lines[2], HasSubstr("*****"));
  EXPECT_THAT(lines[0], testing::Not(HasSubstr("*")));
}

v1::JobProgress Progress(int64_t step, int64_t total) {
  v1::JobProgress progress;
  progress.set_step(step);
  progress.set_total_steps(total);
  (*progress.mutable_values())["loss"] = 3.21349;
  (*progress.mutable_values())["tokens_per_second"] = 12345;
  progress.set_section("train");
  return progress;
}

TEST(ProgressLine, HasBarStepLossSpeedAndEta) {
  EXPECT_EQ(ProgressLine(Progress(450, 1000), absl::Seconds(80), 100),
            "[=============>                ]  45%  step 450/1000  loss 3.213  12.3k tok/s  ETA 1m 20s");
  EXPECT_EQ(ProgressLine(Progress(450, 1000), absl::Seconds(80), 71),
            "[====>      ]  45%  step 450/1000  loss 3.213  12.3k tok/s  ETA 1m 20s");
}

TEST(ProgressLine, OfAGanHasTheCriticsLossAndImages) {
  v1::JobProgress progress;
  progress.set_step(9);
  progress.set_total_steps(10);
  (*progress.mutable_values())["loss_d"] = -1.5;
  (*progress.mutable_values())["images_per_second"] = 512;
  EXPECT_THAT(ProgressLine(progress, absl::InfiniteDuration(), 100), HasSubstr("step 9/10  loss_d -1.5  512 img/s"));
}

TEST(ProgressLine, NeverWrapsAndTakesOddNumbers) {
  for (int columns : {0, 1, 10, 40, 200}) {
    for (const auto& [step, total] : {std::pair<int64_t, int64_t>{0, 0}, {5, 0}, {7, 5}, {-1, 10}, {10, 10}}) {
      EXPECT_LE(ProgressLine(Progress(step, total), absl::InfiniteDuration(), columns).size(),
                static_cast<size_t>(std::max(columns - 1, 0)));
    }
  }
}

TEST(EtaEstimate, FollowsTheSpeedOfThisAttempt) {
  EtaEstimate eta;
  EXPECT_EQ(eta.Remaining(100), absl::InfiniteDuration());
  eta.Add(10, absl::Seconds(100));
  EXPECT_EQ(eta.Remaining(100), absl::InfiniteDuration());
  eta.Add(20, absl::Seconds(105));
  EXPECT_EQ(eta.Remaining(100), absl::Seconds(40));
  eta.Add(5, absl::Seconds(200));  // another attempt: what was before tells nothing
  EXPECT_EQ(eta.Remaining(100), absl::InfiniteDuration());
  eta.Add(6, absl::Seconds(201));
  EXPECT_EQ(eta.Remaining(100), absl::Seconds(94));
}

TEST(ShortNumber, HasOneLetter) {
  EXPECT_EQ(ShortNumber(950), "950");
  EXPECT_EQ(ShortNumber(12345), "12.3k");
  EXPECT_EQ(ShortNumber(1.2e6), "1.2M");
  EXPECT_EQ(ShortNumber(999.9), "1.0k");
}

TEST(Settings, EnvironmentOverFile) {
  TempDir dir;
  ASSERT_OK(WriteFileAtomic(dir.Join("c.yaml"),
                            "address: host:1\nnamespace: team\noutput: json\ninsecure: true\n"
                            "tls_cert: c\ntls_key: k\ntls_ca: a\n"));
  const std::string path = dir.Join("c.yaml");
  std::map<std::string, std::string> environment = {{"TRAINYARD_CONFIG", path}, {"TRAINYARD_ADDRESS", "host:2"}};
  const GetEnv get_env = [&](const char* name) -> const char* {
    const auto found = environment.find(name);
    return found == environment.end() ? nullptr : found->second.c_str();
  };
  ASSERT_OK_AND_ASSIGN(const Settings settings, LoadSettings(get_env));
  EXPECT_EQ(settings.address, "host:2");
  EXPECT_EQ(settings.name_space, "team");
  EXPECT_EQ(settings.output, OutputFormat::kJson);
  EXPECT_TRUE(settings.insecure);
  EXPECT_EQ(settings.tls.cert, "c");
  EXPECT_EQ(settings.tls.key, "k");
  EXPECT_EQ(settings.tls.ca, "a");

  for (const char* bad : {"adress: x\n", "output: xml\n", "insecure: maybe\n", "[1]\n", "a: {b\n"}) {
    ASSERT_OK(WriteFileAtomic(path, bad));
    EXPECT_THAT(LoadSettings(get_env), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(path))) << bad;
  }
  environment["TRAINYARD_CONFIG"] = dir.Join("missing.yaml");
  EXPECT_OK(LoadSettings(get_env));
}

}  // namespace
}  // namespace trainyard::client
