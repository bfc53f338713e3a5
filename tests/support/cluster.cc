#include "tests/support/cluster.h"

#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/check.h"
#include "base/file.h"
#include "base/unique_fd.h"
#include "gtest/gtest.h"

namespace trainyard::testing_support {
namespace {

constexpr absl::Duration kStartTimeout = absl::Seconds(30);

// Deterministic English-like text: a tiny model's loss on it falls within tens of steps.
std::string SampleText(int documents) {
  static constexpr const char* kWords[] = {"the",  "train", "yard",  "moves", "slowly", "north",
                                           "and",  "south", "under", "heavy", "rain",   "while",
                                           "many", "small", "cars",  "wait",  "for",    "light"};
  std::string text;
  uint32_t state = 1;
  for (int document = 0; document < documents; ++document) {
    for (int word = 0; word < 400; ++word) {
      state = state * 1664525u + 1013904223u;
      absl::StrAppend(&text, kWords[(state >> 24) % std::size(kWords)], word % 12 == 11 ? ".\n" : " ");
    }
  }
  return text;
}

// "host:port" from a file of lines "<name> host:port" or a bare address on the first line.
std::string AddressIn(const std::string& path, const std::string& name) {
  const std::string content = ReadFile(path).value_or("");
  for (absl::string_view line : absl::StrSplit(content, '\n')) {
    const std::vector<std::string> words = absl::StrSplit(line, ' ', absl::SkipEmpty());
    if (words.size() == 2 && words[0] == name) return words[1];
  }
  return "";
}

}  // namespace

std::string ProgramPath(const std::string& relative) {
  char path[4096];
  TY_CHECK(getcwd(path, sizeof(path)) != nullptr);
  return absl::StrCat(path, "/", relative);
}

Cluster::Cluster(const ClusterOptions& options) : options_(options) {
  coordinator_dir_ = options.coordinator_dir.empty() ? dir_.Join("coordinator") : options.coordinator_dir;
  job_root_ = options.job_root.empty() ? dir_.Join("jobs") : options.job_root;
  TY_CHECK_OK(MakeDirs(coordinator_dir_));
  TY_CHECK_OK(MakeDirs(job_root_));
  StartCoordinator();
  for (int i = 0; i < options.workers; ++i) StartWorker(i);
  if (options.workers == 0) return;
  const bool ready = WaitUntil(
      [&] {
        const CommandResult listing = Trainyard({"workers", "-o", "json"});
        if (listing.exit_code != 0) return false;
        const auto workers = nlohmann::json::parse(listing.out, nullptr, false);
        if (workers.is_discarded() || !workers.contains("workers")) return false;
        return std::count_if(workers["workers"].begin(), workers["workers"].end(), [](const auto& worker) {
                 return worker.value("state", "") == "WORKER_STATE_READY";
               }) == options_.workers;
      },
      kStartTimeout);
  if (!ready) ADD_FAILURE() << "the cluster did not start\n" << Logs();
}

Cluster::~Cluster() {
  for (auto& [index, worker] : workers_) worker->Signal(SIGTERM);
  for (auto& [index, worker] : workers_) worker->Wait(absl::Seconds(20));
  workers_.clear();
  if (coordinator_ != nullptr) {
    coordinator_->Signal(SIGTERM);
    coordinator_->Wait(absl::Seconds(20));
  }
}

void Cluster::StartCoordinator() {
  coordinator_.reset();
  const std::string port_file = dir_.Join("coordinator.port");
  RemoveTree(port_file).IgnoreError();  // it may not exist
  coordinator_ = std::make_unique<Process>(
      ProcessOptions{.argv = {ProgramPath("coordinator/trainyard-coordinator"), "--listen",
                              address_.empty() ? "127.0.0.1:0" : address_, "--data_dir", coordinator_dir_,
                              "--metrics_listen", "127.0.0.1:0", "--port_file", port_file, "--heartbeat_interval",
                              absl::FormatDuration(options_.heartbeat_interval), "--lease_ttl",
                              absl::FormatDuration(options_.lease_ttl), "--failover_grace",
                              absl::FormatDuration(options_.failover_grace)},
                     .output_path = dir_.Join("coordinator.log")});
  const bool up = WaitUntil([&] { return !AddressIn(port_file, "grpc").empty(); }, kStartTimeout);
  if (!up) {
    ADD_FAILURE() << "the coordinator did not start\n" << Logs();
    return;
  }
  address_ = AddressIn(port_file, "grpc");
}

void Cluster::StartWorker(int index) {
  workers_.erase(index);
  const std::string port_file = dir_.Join(absl::StrCat("worker-", index, ".port"));
  RemoveTree(port_file).IgnoreError();  // it may not exist
  TY_CHECK_OK(MakeDirs(worker_dir(index)));
  workers_[index] = std::make_unique<Process>(ProcessOptions{
      .argv = {ProgramPath("worker/daemon/trainyard-worker"), "--coordinator", address_, "--state_dir",
               worker_dir(index), "--job_root", job_root_, "--data_root", dir_.path(), "--cpu_slots",
               absl::StrCat(options_.slots_per_worker), "--address", "127.0.0.1", "--metrics_listen", "127.0.0.1:0",
               "--runner", ProgramPath("worker/runner/trainyard-runner"), "--port_file", port_file},
      .output_path = dir_.Join(absl::StrCat("worker-", index, ".log"))});
}

std::vector<pid_t> Cluster::Runners() const {
  return ProcessesOf(ProgramPath("worker/runner/trainyard-runner"));
}

std::string Cluster::CoordinatorMetricsAddress() const {
  return AddressIn(dir_.Join("coordinator.port"), "metrics");
}

std::string Cluster::WorkerMetricsAddress(int index) const {
  return AddressIn(dir_.Join(absl::StrCat("worker-", index, ".port")), "metrics");
}

std::string Cluster::worker_dir(int index) const {
  return dir_.Join(absl::StrCat("worker-", index));
}

CommandResult Cluster::Trainyard(const std::vector<std::string>& arguments, absl::Duration timeout) const {
  std::vector<std::string> argv = {ProgramPath("client/trainyard")};
  argv.insert(argv.end(), arguments.begin(), arguments.end());
  return RunCommand(argv, {{"TRAINYARD_ADDRESS", address_}, {"NO_COLOR", "1"}, {"HOME", dir_.path()}}, timeout);
}

std::string Cluster::Submit(const std::string& yaml, const std::vector<std::string>& flags) {
  const std::string path = dir_.Join("job.yaml");
  TY_CHECK_OK(WriteFileAtomic(path, yaml));
  std::vector<std::string> arguments = {"submit", "-f", path, "--quiet"};
  arguments.insert(arguments.end(), flags.begin(), flags.end());
  const CommandResult result = Trainyard(arguments);
  EXPECT_EQ(result.exit_code, 0) << result.err << Logs();
  return std::string(absl::StripAsciiWhitespace(result.out));
}

nlohmann::json Cluster::Get(const std::string& job) const {
  const CommandResult result = Trainyard({"get", job, "-o", "json"});
  return nlohmann::json::parse(result.out, nullptr, false);
}

std::string Cluster::State(const std::string& job) const {
  const nlohmann::json record = Get(job);
  return record.is_object() ? record.value("state", "") : "";
}

int64_t Cluster::Step(const std::string& job) const {
  const nlohmann::json record = Get(job);
  if (!record.is_object() || !record.contains("progress")) return 0;
  int64_t step = 0;
  return absl::SimpleAtoi(record["progress"].value("step", "0"), &step) ? step : 0;  // proto JSON: int64 is a string
}

bool Cluster::WaitForStep(const std::string& job, int64_t step, absl::Duration timeout) const {
  return WaitUntil([&] { return Step(job) >= step; }, timeout);
}

bool Cluster::WaitForState(const std::string& job, const std::string& state, absl::Duration timeout) const {
  const bool reached = WaitUntil([&] { return State(job) == state; }, timeout);
  EXPECT_TRUE(reached) << "wanted " << state << ", got " << Get(job).dump(1) << Logs();
  return reached;
}

std::map<int64_t, std::string> Cluster::Losses(const std::string& job) const {
  std::map<int64_t, std::string> losses;
  const CommandResult result = Trainyard({"metrics", job, "--names", "loss", "-o", "json"});
  const nlohmann::json answer = nlohmann::json::parse(result.out, nullptr, false);
  if (!answer.is_object() || !answer.contains("points")) return losses;
  for (const auto& point : answer["points"]) {
    int64_t step = 0;
    if (!absl::SimpleAtoi(point.value("step", "0"), &step) || !point["values"].contains("loss")) continue;
    losses[step] = point["values"]["loss"].dump();
  }
  return losses;
}

std::string Cluster::ModelBytes(const std::string& job) const {
  const nlohmann::json record = Get(job);
  if (!record.is_object() || !record.contains("result")) return "";
  for (const auto& artifact : record["result"]["artifacts"]) {
    if (artifact.value("name", "") != "model") continue;
    return ReadFile(artifact.value("path", "") + "/model.safetensors").value_or("");
  }
  return "";
}

std::string Cluster::Logs() const {
  std::string all;
  for (const std::string& name : ListDir(dir_.path()).value_or(std::vector<std::string>())) {
    if (!absl::EndsWith(name, ".log")) continue;
    const std::string text = ReadFile(dir_.Join(name)).value_or("");
    absl::StrAppend(&all, "\n---- ", name, "\n", text.substr(text.size() > 6000 ? text.size() - 6000 : 0));
  }
  return all;
}

void Cluster::MakeData() {
  TY_CHECK_OK(WriteFileAtomic(dir_.Join("text.txt"), SampleText(40)));
  const CommandResult result =
      RunCommand({ProgramPath("worker/tools/trainyard-local"), "data", "tokenize", "--input", dir_.Join("text.txt"),
                  "--output", dir_.Join("data"), "--tokenizer", "bytes", "--validation_fraction", "0.05"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
}

std::string Cluster::TinyJob(const std::string& name, int steps, const std::string& extra) {
  return absl::StrCat("name: ", name, R"(
world: {min: 2, slot_type: cpu, threads_per_rank: 1}
seed: 7
pretrain: {}
model:
  shape:
    vocab_size: 512
    hidden_size: 64
    intermediate_size: 128
    num_hidden_layers: 2
    num_attention_heads: 4
    num_key_value_heads: 2
data: {path: data, sequence_length: 64}
training:
  steps: )",
                      steps, R"(
  micro_batch: 4
  optimizer: {adamw: {learning_rate: 3.0e-3}}
  schedule: {shape: cosine, warmup_steps: 5}
checkpoint: {interval_steps: 20, keep_last: 2}
retry: {backoff_initial: 1s, backoff_maximum: 2s}
)",
                      extra);
}

}  // namespace trainyard::testing_support
