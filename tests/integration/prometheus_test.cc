// A real Prometheus server scrapes the coordinator and a worker of a live cluster, and promtool judges what they expose
// (CP-68 to CP-70).
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/undisturbed.h"

namespace trainyard::testing_support {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

std::string Scrape(const std::string& address) {
  return RunCommand({"python3", "-c",
                     absl::StrCat("import urllib.request; print(urllib.request.urlopen('http://", address,
                                  "/metrics', timeout=10).read().decode(), end='')")})
      .out;
}

// Value of an instant query as text; empty if there is no such series.
std::string Query(int port, const std::string& expression) {
  const CommandResult result = RunCommand(
      {"python3", "-c",
       "import json, sys, urllib.parse, urllib.request\n"
       "url = 'http://127.0.0.1:%s/api/v1/query?' % sys.argv[1] + urllib.parse.urlencode({'query': sys.argv[2]})\n"
       "result = json.load(urllib.request.urlopen(url, timeout=10))['data']['result']\n"
       "print(result[0]['value'][1] if result else '', end='')",
       absl::StrCat(port), expression});
  return result.out;
}

int FreePort() {
  return std::stoi(
      RunCommand(
          {"python3", "-c", "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); print(s.getsockname()[1])"})
          .out);
}

class PrometheusTest : public ::testing::Test {
 protected:
  void SetUp() override { cluster_.MakeData(); }
  Cluster cluster_;
};

TEST_F(PrometheusTest, PromtoolFindsNothingToSayAboutOurMetrics) {
  const std::string job = cluster_.Submit(Cluster::TinyJob("metrics", 20000));
  ASSERT_TRUE(cluster_.WaitForStep(job, 50)) << cluster_.Logs();
  for (const std::string& address : {cluster_.CoordinatorMetricsAddress(), cluster_.WorkerMetricsAddress(0)}) {
    const std::string text = Scrape(address);
    ASSERT_THAT(text, HasSubstr("trainyard_")) << address;
    const std::string path = cluster_.dir() + "/scrape.txt";
    ASSERT_TRUE(WriteFileAtomic(path, text).ok());
    const CommandResult verdict = RunCommand({"sh", "-c", "promtool check metrics < " + path});
    // promtool also complains of what the exposer library says of itself; only our names are ours to mend.
    std::string ours;
    for (absl::string_view line : absl::StrSplit(verdict.out + verdict.err, '\n')) {
      if (absl::StrContains(line, "trainyard_")) absl::StrAppend(&ours, line, "\n");
    }
    EXPECT_THAT(ours, IsEmpty());
  }
  // No series per job on the coordinator, whatever runs (CP-68).
  EXPECT_THAT(Scrape(cluster_.CoordinatorMetricsAddress()), Not(HasSubstr(job)));
  EXPECT_THAT(Scrape(cluster_.WorkerMetricsAddress(0)), HasSubstr(job));
  ASSERT_EQ(cluster_.Trainyard({"cancel", job}).exit_code, 0);
  cluster_.WaitForState(job, "JOB_STATE_CANCELLED");
  // The worker's series of a job go with its task.
  EXPECT_TRUE(
      WaitUntil([&] { return !absl::StrContains(Scrape(cluster_.WorkerMetricsAddress(0)), job); }, absl::Seconds(20)));
}

TEST_F(PrometheusTest, AServerScrapesBothAndAnswersQueries) {
  const std::string config = cluster_.dir() + "/prometheus.yml";
  ASSERT_TRUE(
      WriteFileAtomic(
          config,
          absl::StrCat("global: {scrape_interval: 1s}\nscrape_configs:\n",
                       "- job_name: coordinator\n  static_configs: [{targets: ['", cluster_.CoordinatorMetricsAddress(),
                       "']}]\n", "- job_name: worker\n  honor_labels: true\n  static_configs: [{targets: ['",
                       cluster_.WorkerMetricsAddress(0), "', '", cluster_.WorkerMetricsAddress(1), "']}]\n"))
          .ok());
  const int port = FreePort();
  Process server({.argv = {"prometheus", "--config.file=" + config, "--storage.tsdb.path=" + cluster_.dir() + "/tsdb",
                           absl::StrCat("--web.listen-address=127.0.0.1:", port)},
                  .output_path = cluster_.dir() + "/prometheus.log"});
  const std::string job = cluster_.Submit(Cluster::TinyJob("scraped", 20000));
  ASSERT_TRUE(cluster_.WaitForStep(job, 50)) << cluster_.Logs();
  const absl::Duration patience = absl::Seconds(40);
  EXPECT_TRUE(WaitUntil([&] { return Query(port, "sum(up)") == "3"; }, patience)) << cluster_.Logs();
  EXPECT_TRUE(WaitUntil([&] { return Query(port, "sum(trainyard_jobs{state=\"running\"})") == "1"; }, patience));
  EXPECT_TRUE(WaitUntil([&] { return Query(port, "sum(trainyard_slots{state=\"busy\"})") == "2"; }, patience));
  EXPECT_TRUE(
      WaitUntil([&] { return !Query(port, absl::StrCat("trainyard_loss{job=\"", job, "\"} > 0")).empty(); }, patience));
  EXPECT_TRUE(WaitUntil(
      [&] { return !Query(port, absl::StrCat("rate(trainyard_tokens_total{job=\"", job, "\"}[10s]) > 0")).empty(); },
      patience));
  EXPECT_EQ(Query(port, "sum(trainyard_invariant_violations_total)"), "0");
  cluster_.Trainyard({"cancel", job});
  cluster_.WaitForState(job, "JOB_STATE_CANCELLED");
}

}  // namespace
}  // namespace trainyard::testing_support
