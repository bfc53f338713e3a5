// Figure (e): from kill -9 of a rank to the first step that the job makes after it, with a back-off of one second.
#include <signal.h>

#include <cstdio>

#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "tests/support/undisturbed.h"

int main() {
  using trainyard::RealClock;
  using namespace trainyard::testing_support;
  Cluster cluster;
  cluster.MakeData();
  for (int round = 0; round < 3; ++round) {
    const std::string job = cluster.Submit(Cluster::TinyJob(absl::StrCat("recover-", round), 1'000'000));
    cluster.WaitForStep(job, 200);
    const absl::Duration begin = RealClock()->Monotonic();
    kill(cluster.Runners().back(), SIGKILL);
    const bool came_back = WaitUntil(
        [&] {
          const nlohmann::json record = cluster.Get(job);
          if (!record.contains("attempts") || record["attempts"].size() < 2) return false;
          const int64_t restored = std::stoll(record["attempts"].back().value("restoredStep", "0"));
          return record.value("state", "") == "JOB_STATE_RUNNING" && cluster.Step(job) > restored &&
                 record["progress"].value("section", "") == "train";
        },
        absl::Seconds(60));
    std::printf("round %d: %s %.2f s after the kill\n", round + 1, came_back ? "first new step" : "no step",
                absl::ToDoubleSeconds(RealClock()->Monotonic() - begin));
    cluster.Trainyard({"cancel", job});
    cluster.WaitForState(job, "JOB_STATE_CANCELLED");
  }
}
