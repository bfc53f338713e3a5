// Figures (b, resident memory) and (c): tokens a second of one rank and of two ranks, one thread each, taking turns in
// one run; and each rank's resident memory against the plan.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>

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

// Waits without taking the ranks' processor time: each look at a job starts the CLI.
void WaitPatiently(Cluster& cluster, const std::function<bool()>& condition) {
  for (int i = 0; i < 600 && !condition(); ++i) Pause(absl::Seconds(1));
}

void PrintResidentMemory(Cluster& cluster, int ranks, const std::string& yaml) {
  const std::string path = cluster.dir() + "/plan.yaml";
  if (!WriteFileAtomic(path, yaml).ok()) return;
  const auto plan = nlohmann::json::parse(cluster.Trainyard({"plan", path, "-o", "json"}).out, nullptr, false);
  const double planned = plan.is_object() ? plan.value("memory_bytes_per_rank", 0.0) : 0.0;
  for (pid_t pid : cluster.Runners()) {
    const double resident = static_cast<double>(ResidentBytes(pid));
    std::printf("%d rank(s), pid %d: resident %.1f MiB, plan %.1f MiB, ratio %.3f\n", ranks, static_cast<int>(pid),
                resident / 1048576, planned / 1048576, planned > 0 ? resident / planned : 0);
  }
}

// Tokens a second of every step but the first two.
std::vector<double> TokensPerSecond(Cluster& cluster, int ranks, int steps, bool prints_memory) {
  const std::string yaml = Job(ranks, steps);
  const std::string job = cluster.Submit(yaml);
  if (prints_memory) {
    WaitPatiently(cluster, [&] { return cluster.Step(job) >= 2; });
    PrintResidentMemory(cluster, ranks, yaml);
  }
  WaitPatiently(cluster, [&] { return cluster.State(job) == "JOB_STATE_SUCCEEDED"; });
  std::vector<double> rates;
  const auto answer = nlohmann::json::parse(
      cluster.Trainyard({"metrics", job, "--names", "tokens_per_second", "-o", "json"}).out, nullptr, false);
  for (const auto& point : answer["points"]) rates.push_back(point["values"].value("tokens_per_second", 0.0));
  rates.erase(rates.begin(), rates.begin() + std::min<size_t>(2, rates.size()));
  return rates;
}

double Median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

}  // namespace
}  // namespace trainyard::testing_support

int main(int argc, char** argv) {
  using namespace trainyard::testing_support;
  const int rounds = argc > 1 ? std::atoi(argv[1]) : 4;
  const int steps = 8;
  Cluster cluster;
  cluster.MakeData();
  std::vector<double> one, two;
  for (int round = 0; round < rounds; ++round) {
    for (double rate : TokensPerSecond(cluster, 1, steps, round == 0)) one.push_back(rate);
    for (double rate : TokensPerSecond(cluster, 2, steps, round == 0)) two.push_back(rate);
  }
  if (one.empty() || two.empty()) return 1;
  const double best_one = *std::max_element(one.begin(), one.end()),
               best_two = *std::max_element(two.begin(), two.end());
  std::printf("tokens/s of the median step: one rank %.0f, two ranks %.0f, ratio %.2f\n", Median(one), Median(two),
              Median(two) / Median(one));
  std::printf("tokens/s of the best step:   one rank %.0f, two ranks %.0f, ratio %.2f\n", best_one, best_two,
              best_two / best_one);
}
