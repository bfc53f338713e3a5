// Figures (b, resident memory) and (c): tokens a second of one rank and of two ranks, one thread each, in one run; and
// each rank's resident memory against the plan.
#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/file.h"
#include "tests/support/undisturbed.h"

namespace trainyard::testing_support {
namespace {

std::string Job(int ranks, int steps) {
  return absl::StrCat("name: ranks-", ranks, "\nworld: {min: ", ranks, R"(, slot_type: cpu, threads_per_rank: 1}
seed: 3
pretrain: {}
model: {preset: llama-25m}
data: {path: data, sequence_length: 512}
training:
  micro_batch: 4
  steps: )",
                      steps, R"(
  optimizer: {adamw: {learning_rate: 1.0e-3}}
checkpoint: {interval_steps: 100000, on_stop: false}
)");
}

int64_t ResidentBytes(pid_t pid) {
  const std::string status = ReadFile(absl::StrCat("/proc/", pid, "/status")).value_or("");
  for (absl::string_view line : absl::StrSplit(status, '\n')) {
    if (!absl::ConsumePrefix(&line, "VmRSS:")) continue;
    const std::vector<std::string> words = absl::StrSplit(line, absl::ByAnyChar(" \t"), absl::SkipEmpty());
    int64_t kib = 0;
    if (!words.empty() && absl::SimpleAtoi(words[0], &kib)) return kib * 1024;
  }
  return 0;
}

// Median tokens a second over the steps after the first three.
double TokensPerSecond(Cluster& cluster, int ranks, int steps) {
  const std::string yaml = Job(ranks, steps);
  const std::string job = cluster.Submit(yaml);
  cluster.WaitForStep(job, steps / 2, absl::Seconds(300));
  const std::string path = cluster.dir() + "/plan.yaml";
  if (!WriteFileAtomic(path, yaml).ok()) return 0;
  const auto plan = nlohmann::json::parse(cluster.Trainyard({"plan", path, "-o", "json"}).out, nullptr, false);
  const double planned = plan.is_object() ? plan.value("memory_bytes_per_rank", 0.0) : 0.0;
  for (pid_t pid : cluster.Runners()) {
    const double resident = static_cast<double>(ResidentBytes(pid));
    std::printf("%d rank(s), pid %d: resident %.1f MiB, plan %.1f MiB, ratio %.3f\n", ranks, static_cast<int>(pid),
                resident / 1048576, planned / 1048576, planned > 0 ? resident / planned : 0);
  }
  cluster.WaitForState(job, "JOB_STATE_SUCCEEDED", absl::Seconds(600));
  std::vector<double> rates;
  const auto answer = nlohmann::json::parse(
      cluster.Trainyard({"metrics", job, "--names", "tokens_per_second", "-o", "json"}).out, nullptr, false);
  for (const auto& point : answer["points"]) rates.push_back(point["values"].value("tokens_per_second", 0.0));
  if (rates.size() < 5) return 0;
  rates.erase(rates.begin(), rates.begin() + 3);
  std::nth_element(rates.begin(), rates.begin() + rates.size() / 2, rates.end());
  return rates[rates.size() / 2];
}

}  // namespace
}  // namespace trainyard::testing_support

int main(int argc, char** argv) {
  using namespace trainyard::testing_support;
  const int steps = argc > 1 ? std::atoi(argv[1]) : 16;
  Cluster cluster;
  cluster.MakeData();
  const double one = TokensPerSecond(cluster, 1, steps);
  const double two = TokensPerSecond(cluster, 2, steps);
  const double again = TokensPerSecond(cluster, 1, steps);  // so that a drift of the machine shows
  std::printf("one rank %.0f tokens/s, two ranks %.0f, one rank again %.0f; ratio %.2f\n", one, two, again,
              2 * two / (one + again));
}
