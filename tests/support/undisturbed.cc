#include "tests/support/undisturbed.h"

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace trainyard::testing_support {

RunRecord RunUndisturbed(Cluster& cluster, const std::string& name) {
  const std::string job = cluster.Submit(Cluster::TinyJob(name, kSteps));
  cluster.WaitForState(job, "JOB_STATE_SUCCEEDED", absl::Seconds(180));
  RunRecord record{cluster.Losses(job), cluster.ModelBytes(job)};
  for (int64_t step = 1; step <= kSteps; ++step)
    EXPECT_EQ(record.losses.count(step), 1u) << "no loss for step " << step;
  EXPECT_FALSE(record.model.empty());
  return record;
}

void ExpectSameAs(const RunRecord& expected, Cluster& cluster, const std::string& job) {
  if (!cluster.WaitForState(job, "JOB_STATE_SUCCEEDED", absl::Seconds(180))) return;
  const std::map<int64_t, std::string> losses = cluster.Losses(job);
  EXPECT_EQ(losses.size(), expected.losses.size());
  for (const auto& [step, loss] : expected.losses) {
    const auto found = losses.find(step);
    ASSERT_NE(found, losses.end()) << "no loss for step " << step;
    ASSERT_EQ(found->second, loss) << "at step " << step;
  }
  EXPECT_TRUE(cluster.ModelBytes(job) == expected.model) << "the exported weights differ";
}

void ExpectNoRunnerLeft(const Cluster& cluster) {
  EXPECT_TRUE(WaitUntil([&] { return cluster.Runners().empty(); }, absl::Seconds(15)))
      << cluster.Runners().size() << " runner processes are left";
}

int Attempts(const Cluster& cluster, const std::string& job) {
  const nlohmann::json record = cluster.Get(job);
  return record.contains("attempts") ? static_cast<int>(record["attempts"].size()) : 0;
}

}  // namespace trainyard::testing_support
