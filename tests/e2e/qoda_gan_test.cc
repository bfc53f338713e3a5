// A GAN job as its user sees it: two ranks on two workers that exchange 4-bit gradients; one is killed with -9, and the
// result is that of a run nobody disturbed, bit for bit.
#include <signal.h>

#include <cmath>
#include <map>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/undisturbed.h"

namespace trainyard::testing_support {
namespace {

using ::testing::HasSubstr;

std::string RingJob(const std::string& name, int updates, const std::string& optimizer) {
  return absl::StrCat("name: ", name, R"(
world: {min: 2, slot_type: cpu, threads_per_rank: 1}
seed: 11
qoda_gan:
  networks: {mlp: {hidden: 64, layers: 2}}
  data: mixture
  optimizer: )",
                      optimizer, R"(
  updates: )",
                      updates, R"(
  global_batch: 64
  latent_dim: 4
  ema: 0.99
  evaluation_interval: 400
  sample_interval: 400
  evaluation_samples: 512
communication:
  codec: {maxmin: {bits: 4, bucket_size: 128}}
checkpoint: {interval_steps: 50, keep_last: 2}
retry: {backoff_initial: 1s, backoff_maximum: 2s}
)");
}

// step -> the exact texts of its losses and rates.
std::map<int64_t, std::string> History(const Cluster& cluster, const std::string& job) {
  std::map<int64_t, std::string> history;
  const CommandResult result =
      cluster.Trainyard({"metrics", job, "--names", "loss_d,loss_g,gradient_norm,eta", "-o", "json"});
  const nlohmann::json answer = nlohmann::json::parse(result.out, nullptr, false);
  if (!answer.is_object() || !answer.contains("points")) return history;
  for (const auto& point : answer["points"]) {
    int64_t step = 0;
    if (absl::SimpleAtoi(point.value("step", "0"), &step)) history[step] = point["values"].dump();
  }
  return history;
}

std::string ArtifactPath(const Cluster& cluster, const std::string& job, const std::string& name) {
  const nlohmann::json record = cluster.Get(job);
  for (const auto& artifact : record["result"]["artifacts"]) {
    if (artifact.value("name", "") == name) return artifact.value("path", "");
  }
  return "";
}

// The exported nets, as bytes.
std::map<std::string, std::string> Exports(const Cluster& cluster, const std::string& job) {
  std::map<std::string, std::string> files;
  const std::string directory = ArtifactPath(cluster, job, "generator");
  for (const std::string& name : ListDir(directory).value_or(std::vector<std::string>())) {
    files[name] = ReadFile(JoinPath(directory, name)).value_or("");
  }
  return files;
}

constexpr int kUpdates = 2000;
constexpr char kQodaDa[] = "{qoda_da: {lr_scale: 0.02}}";

TEST(QodaGanTest, KilledRankIsReplacedAndTheRunEqualsTheUndisturbedOne) {
  Cluster cluster;
  const std::string undisturbed = cluster.Submit(RingJob("undisturbed", kUpdates, kQodaDa));
  ASSERT_TRUE(cluster.WaitForState(undisturbed, "JOB_STATE_SUCCEEDED", absl::Seconds(180))) << cluster.Logs();

  const std::string disturbed = cluster.Submit(RingJob("disturbed", kUpdates, kQodaDa));
  ASSERT_TRUE(cluster.WaitForStep(disturbed, 150)) << cluster.Logs();
  const std::vector<pid_t> runners = cluster.Runners();
  ASSERT_EQ(runners.size(), 2u);
  kill(runners[1], SIGKILL);
  ASSERT_TRUE(cluster.WaitForState(disturbed, "JOB_STATE_SUCCEEDED", absl::Seconds(180))) << cluster.Logs();
  EXPECT_EQ(Attempts(cluster, disturbed), 2);
  EXPECT_NE(cluster.Get(disturbed)["attempts"][1].value("restoredStep", "0"), "0") << "attempt 2 began from nothing";

  const std::map<int64_t, std::string> expected = History(cluster, undisturbed), actual = History(cluster, disturbed);
  ASSERT_EQ(expected.size(), static_cast<size_t>(kUpdates));
  EXPECT_THAT(expected.begin()->second, HasSubstr("eta"));
  EXPECT_EQ(actual, expected);
  const std::map<std::string, std::string> nets = Exports(cluster, undisturbed);
  ASSERT_EQ(nets.size(), 4u);  // generator, its averages, discriminator
  for (const auto& [name, bytes] : nets) EXPECT_FALSE(bytes.empty()) << name;
  EXPECT_TRUE(Exports(cluster, disturbed) == nets) << "the exported weights differ";

  // What else the job promises.
  const nlohmann::json record = cluster.Get(undisturbed);
  const nlohmann::json values = record["result"]["values"];
  EXPECT_TRUE(std::isfinite(values.value("sliced_wasserstein", NAN)));
  EXPECT_GE(values.value("modes_covered", -1.0), 0);
  const auto grids = ListDir(ArtifactPath(cluster, undisturbed, "samples"));
  ASSERT_TRUE(grids.ok());
  EXPECT_EQ(grids->size(), static_cast<size_t>(kUpdates / 400));
  ExpectNoRunnerLeft(cluster);
}

TEST(QodaGanTest, WrongSpecsAreRefusedWithTheirPlaces) {
  Cluster cluster;
  std::string yaml = RingJob("wrong", 10, kQodaDa);
  yaml.replace(yaml.find("global_batch: 64"), 16, "global_batch: 63");
  yaml.replace(yaml.find("{bits: 4, bucket_size: 128}"), 27, "{bits: 4, rounding: nearest}");
  const std::string path = cluster.dir() + "/wrong.yaml";
  ASSERT_TRUE(WriteFileAtomic(path, yaml).ok());
  const CommandResult result = cluster.Trainyard({"submit", "-f", path});
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.err, HasSubstr("qoda_gan.global_batch: 63 is not a multiple of the 2 ranks"));
  EXPECT_THAT(result.err, HasSubstr("communication.codec: maxmin with rounding nearest is biased"));
  EXPECT_THAT(result.err, HasSubstr("wrong.yaml:"));
}

}  // namespace
}  // namespace trainyard::testing_support
