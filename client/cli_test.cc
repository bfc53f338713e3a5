// The whole program against a Jobs service of our own over real gRPC: what it asks, prints, and exits with.
#include "client/cli.h"

#include <google/protobuf/util/json_util.h>
#include <grpcpp/grpcpp.h>

#include <sstream>
#include <thread>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/file.h"
#include "base/mutex.h"
#include "base/testing/fake_clock.h"
#include "base/testing/temp_dir.h"
#include "gmock/gmock.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/server.h"
#include "proto/rpc/status.h"
#include "proto/v1/coordinator.grpc.pb.h"

namespace trainyard::client {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

// Answers from a script. Watch and Logs take one entry of their script for each call.
class FakeJobs final : public v1::Jobs::Service {
 public:
  struct WatchCall {
    std::vector<v1::WatchResponse> events;
    absl::Status end;
    bool hang = false;  // until the client goes
  };

  grpc::Status Submit(grpc::ServerContext*, const v1::SubmitRequest* request, v1::SubmitResponse* response) override {
    submits.push_back(*request);
    if (!error.ok()) return ToGrpcStatus(error);
    *response->mutable_job() = job;
    response->set_deduplicated(submits.size() > 1 && submits.back().request_id() == submits[0].request_id());
    return grpc::Status::OK;
  }
  grpc::Status SubmitBatch(grpc::ServerContext*, const v1::SubmitBatchRequest* request,
                           v1::SubmitBatchResponse* response) override {
    batches.push_back(*request);
    if (!error.ok()) return ToGrpcStatus(error);
    for (const v1::JobSpec& spec : request->specs()) {
      v1::Job* made = response->add_jobs();
      *made = job;
      made->set_name(spec.name());
      made->set_uid(absl::StrCat("u-", spec.name()));
      *made->mutable_spec() = spec;
    }
    return grpc::Status::OK;
  }
  grpc::Status Get(grpc::ServerContext*, const v1::GetRequest* request, v1::Job* response) override {
    if (!error.ok()) return ToGrpcStatus(error);
    if (request->job() != job.name() && request->job() != job.uid()) {
      return grpc::Status(grpc::StatusCode::NOT_FOUND, absl::StrCat("no job ", request->job()));
    }
    *response = job;
    return grpc::Status::OK;
  }
  grpc::Status List(grpc::ServerContext*, const v1::ListRequest* request, v1::ListResponse* response) override {
    lists.push_back(*request);
    if (!trials.empty()) {
      for (const v1::Job& trial : trials) *response->add_jobs() = trial;
      return grpc::Status::OK;
    }
    *response->add_jobs() = job;
    if (request->page_token().empty()) {
      response->set_next_page_token("2");
    } else {
      response->mutable_jobs(0)->set_name("second");
    }
    return grpc::Status::OK;
  }
  grpc::Status Cancel(grpc::ServerContext*, const v1::JobActionRequest* request, v1::Job* response) override {
    actions.push_back(*request);
    if (!error.ok()) return ToGrpcStatus(error);
    *response = job;
    response->set_state(v1::JOB_STATE_STOPPING);
    return grpc::Status::OK;
  }
  grpc::Status Watch(grpc::ServerContext* context, const v1::WatchRequest* request,
                     grpc::ServerWriter<v1::WatchResponse>* writer) override {
    watches.push_back(request->after_revision());
    if (watch_script.size() < watches.size()) return grpc::Status(grpc::StatusCode::INTERNAL, "script is over");
    const WatchCall& call = watch_script[watches.size() - 1];
    for (const auto& event : call.events) writer->Write(event);
    if (on_watch) on_watch();
    while (call.hang && !context->IsCancelled()) std::this_thread::yield();
    return ToGrpcStatus(call.end);
  }
  grpc::Status Logs(grpc::ServerContext*, const v1::LogsRequest* request,
                    grpc::ServerWriter<v1::LogFrame>* writer) override {
    logs.push_back(*request);
    if (log_script.size() < logs.size()) return grpc::Status(grpc::StatusCode::INTERNAL, "script is over");
    for (const auto& frame : log_script[logs.size() - 1].first) writer->Write(frame);
    return ToGrpcStatus(log_script[logs.size() - 1].second);
  }
  grpc::Status Metrics(grpc::ServerContext*, const v1::MetricsRequest* request,
                       v1::MetricsResponse* response) override {
    metrics_request = *request;
    for (int i = 0; i < 20; ++i) {
      auto* point = response->add_points();
      point->set_step(i);
      point->set_attempt(1);
      (*point->mutable_values())["loss"] = 10.0 - i * 0.25;
    }
    return grpc::Status::OK;
  }
  grpc::Status ListWorkers(grpc::ServerContext*, const v1::ListWorkersRequest*,
                           v1::ListWorkersResponse* response) override {
    auto* worker = response->add_workers();
    worker->set_worker_id("w-1");
    worker->set_state(v1::WORKER_STATE_READY);
    worker->add_slots()->set_state(v1::SLOT_STATE_FREE);
    for (const v1::SlotState state : {v1::SLOT_STATE_FREE, v1::SLOT_STATE_UNHEALTHY}) {
      auto* slot = worker->add_slots();
      slot->set_type(v1::SLOT_TYPE_GPU);
      slot->set_index(worker->slots_size() - 1);
      slot->set_state(state);
      if (state == v1::SLOT_STATE_UNHEALTHY) slot->set_health_message("XID 79 since the host's boot");
      slot->mutable_gpu()->set_index(worker->slots_size() - 2);
      slot->mutable_gpu()->set_uuid("GPU-1");
      slot->mutable_gpu()->set_name("Fake H100");
      slot->mutable_gpu()->set_memory_bytes(int64_t{80} << 30);
      slot->mutable_gpu()->set_compute_capability("9.0");
    }
    for (const v1::SlotState state : {v1::SLOT_STATE_FREE, v1::SLOT_STATE_BUSY}) {
      auto* slot = worker->add_slots();
      slot->set_type(v1::SLOT_TYPE_DRIVER);
      slot->set_state(state);
    }
    return grpc::Status::OK;
  }
  grpc::Status ForgetWorker(grpc::ServerContext*, const v1::ForgetWorkerRequest* request,
                            v1::ForgetWorkerResponse*) override {
    forgotten.push_back(request->worker_id());
    return ToGrpcStatus(error);
  }
  grpc::Status GetServerInfo(grpc::ServerContext*, const v1::GetServerInfoRequest*, v1::ServerInfo* info) override {
    info->set_version("9.9");
    return grpc::Status::OK;
  }

  v1::Job job;
  absl::Status error;
  std::vector<v1::SubmitRequest> submits;
  std::vector<v1::SubmitBatchRequest> batches;
  std::vector<v1::Job> trials;  // what List answers, if set
  std::vector<v1::ListRequest> lists;
  std::vector<std::string> forgotten;
  std::vector<v1::JobActionRequest> actions;
  std::vector<uint64_t> watches;
  std::vector<v1::LogsRequest> logs;
  v1::MetricsRequest metrics_request;
  std::vector<WatchCall> watch_script;
  std::vector<std::pair<std::vector<v1::LogFrame>, absl::Status>> log_script;
  std::function<void()> on_watch;
};

constexpr char kJob[] = R"(name: tiny
model: {preset: llama-1m}
data: {path: d, sequence_length: 64}
training:
  steps: 10
pretrain:
)";

class CliTest : public ::testing::Test {
 protected:
  CliTest() {
    fake_.job.set_name("tiny");
    fake_.job.set_uid("u-1");
    fake_.job.set_namespace_("default");
    fake_.job.set_queue("default");
    fake_.job.set_state(v1::JOB_STATE_QUEUED);
    auto server = RpcServer::Start({}, {&fake_});
    TY_CHECK_OK(server);
    server_ = *std::move(server);
    file_ = dir_.Join("job.yaml");
    TY_CHECK_OK(WriteFileAtomic(file_, kJob));
    environment_ = {{"TRAINYARD_ADDRESS", server_->address()}, {"TRAINYARD_CONFIG", dir_.Join("none.yaml")}};
  }

  int Run(const std::vector<std::string>& args) {
    out_.str("");
    err_.str("");
    Environment env;
    env.out = &out_;
    env.err = &err_;
    env.get_env = [this](const char* name) -> const char* {
      const auto found = environment_.find(name);
      return found == environment_.end() ? nullptr : found->second.c_str();
    };
    env.is_terminal = is_terminal_;
    env.interrupt = &interrupt_;
    env.clock = &clock_;
    env.program_path = dir_.Join("bin/client/trainyard");
    env.execute = [this](const std::string& path, const std::vector<std::string>& words) {
      executed_ = words;
      executed_.insert(executed_.begin(), path);
      return ENOEXEC;
    };
    return RunCli(args, env);
  }

  v1::WatchResponse Event(uint64_t revision, v1::JobState state) {
    v1::WatchResponse event;
    event.set_revision(revision);
    *event.mutable_job() = fake_.job;
    event.mutable_job()->set_state(state);
    return event;
  }
  v1::WatchResponse ProgressEvent(int64_t step) {
    v1::WatchResponse event;
    event.mutable_progress()->mutable_progress()->set_step(step);
    event.mutable_progress()->mutable_progress()->set_total_steps(10);
    return event;
  }
  static v1::LogFrame Frame(int rank, int64_t offset, const std::string& data) {
    v1::LogFrame frame;
    frame.set_attempt(1);
    frame.set_rank(rank);
    frame.set_stream("stdout");
    frame.set_offset(offset);
    frame.set_data(data);
    return frame;
  }

  FakeJobs fake_;
  std::unique_ptr<RpcServer> server_;
  TempDir dir_;
  std::string file_;
  std::map<std::string, std::string> environment_;
  std::ostringstream out_, err_;
  bool is_terminal_ = false;
  Interrupt interrupt_;
  FakeClock clock_;
  std::vector<std::string> executed_;
};

TEST_F(CliTest, SubmitPrintsJobPositionAndReason) {
  fake_.job.set_queue_position(2);
  fake_.job.mutable_pending()->set_message("needs 2 slots, 1 free");
  EXPECT_EQ(Run({"submit", "-f", file_, "--set", "training.steps=7", "-n", "team"}), 0) << err_.str();
  EXPECT_EQ(out_.str(), "job tiny (u-1) queued, position 2 in queue default: needs 2 slots, 1 free\n");
  ASSERT_EQ(fake_.submits.size(), 1u);
  EXPECT_EQ(fake_.submits[0].spec().training().steps(), 7);
  EXPECT_EQ(fake_.submits[0].spec().namespace_(), "team");
  EXPECT_EQ(fake_.submits[0].request_id().size(), 36u);
  EXPECT_EQ(Run({"submit", "-f", file_, "--quiet"}), 0);
  EXPECT_EQ(out_.str(), "u-1\n");
  EXPECT_NE(fake_.submits[0].request_id(), fake_.submits[1].request_id());
}

TEST_F(CliTest, ARepeatedRequestSaysSo) {
  EXPECT_EQ(Run({"submit", "-f", file_, "--request-id", "r"}), 0);
  EXPECT_EQ(Run({"submit", "-f", file_, "--request-id", "r"}), 0);
  EXPECT_THAT(err_.str(), HasSubstr("request r was accepted before"));
}

TEST_F(CliTest, ABadFileCallsNobody) {
  EXPECT_EQ(Run({"submit", "-f", file_, "--set", "training.steps=0"}), 2);
  EXPECT_EQ(err_.str(), "--set training.steps=0: training.steps: 0 not in [1, 1000000000]\n");
  EXPECT_EQ(Run({"submit", "-f", dir_.Join("none.yaml")}), 2);
  EXPECT_EQ(Run({"submit", "-f", file_, "--dry-run=client"}), 0);
  EXPECT_EQ(fake_.submits.size(), 0u);
  EXPECT_EQ(Run({"submit", "-f", file_, "--dry-run=server"}), 0);
  EXPECT_TRUE(fake_.submits.at(0).validate_only());
}

TEST_F(CliTest, WhatTheCoordinatorRefusesHasALineToo) {
  fake_.error = absl::InvalidArgumentError("bad");
  SetFieldViolations(&fake_.error, {{"training.steps", "10 is too many here"}});
  EXPECT_EQ(Run({"submit", "-f", file_}), 1);
  EXPECT_EQ(err_.str(), file_ + ":5:3: training.steps: 10 is too many here\n");
}

constexpr char kPipeline[] = R"(name: train
model: {preset: llama-1m}
data: {path: d, sequence_length: 64}
training: {steps: 10}
pretrain:
---
name: more
depends_on: [outside]
model:
  artifact: train
data: {path: d, sequence_length: 64}
training: {steps: 10}
pretrain:
)";

TEST_F(CliTest, AFileOfSeveralJobsGoesInOneCall) {
  ASSERT_TRUE(WriteFileAtomic(file_, kPipeline).ok());
  EXPECT_EQ(Run({"submit", "-f", file_, "-n", "team"}), 0) << err_.str();
  EXPECT_EQ(out_.str(), "job train (u-train) queued\njob more (u-more) queued, after outside and train\n");
  ASSERT_EQ(fake_.batches.size(), 1u);
  EXPECT_EQ(fake_.submits.size(), 0u);
  ASSERT_EQ(fake_.batches[0].specs_size(), 2);
  EXPECT_EQ(fake_.batches[0].specs(1).model().artifact().job(), "train");
  EXPECT_EQ(fake_.batches[0].specs(1).namespace_(), "team");
  EXPECT_EQ(fake_.batches[0].request_id().size(), 36u);
  EXPECT_EQ(Run({"submit", "-f", file_, "-q", "--request-id", "r"}), 0);
  EXPECT_EQ(out_.str(), "u-train\nu-more\n");
  EXPECT_EQ(fake_.batches[1].request_id(), "r");
  EXPECT_EQ(Run({"submit", "-f", file_, "-o", "json"}), 0);
  v1::SubmitBatchResponse response;
  ASSERT_TRUE(google::protobuf::util::JsonStringToMessage(out_.str(), &response).ok()) << out_.str();
  EXPECT_EQ(response.jobs_size(), 2);
  EXPECT_EQ(Run({"submit", "-f", file_, "--dry-run=server"}), 0);
  EXPECT_TRUE(fake_.batches.back().validate_only());
  EXPECT_THAT(out_.str(), HasSubstr("would accept its 2 jobs"));
}

TEST_F(CliTest, WatchAfterSeveralJobsIsOfTheLast) {
  ASSERT_TRUE(WriteFileAtomic(file_, kPipeline).ok());
  v1::WatchResponse end = Event(1, v1::JOB_STATE_SUCCEEDED);
  end.mutable_job()->set_uid("u-more");
  end.mutable_job()->set_name("more");
  fake_.watch_script = {{{end}, absl::OkStatus()}};
  EXPECT_EQ(Run({"submit", "-f", file_, "--watch"}), 0) << err_.str();
  EXPECT_THAT(err_.str(), HasSubstr("watching more, the last of 2 jobs"));
  EXPECT_THAT(out_.str(), testing::EndsWith("job more succeeded\n"));
}

TEST_F(CliTest, ProblemsOfAllJobsOfAFileHaveTheirLines) {
  ASSERT_TRUE(WriteFileAtomic(file_, kPipeline).ok());
  EXPECT_EQ(Run({"submit", "-f", file_, "--set", "training.micro_batch=0"}), 2);
  const std::string problem = "--set training.micro_batch=0: training.micro_batch: 0 not in";
  EXPECT_THAT(err_.str(), HasSubstr(problem));
  fake_.error = absl::InvalidArgumentError("bad");
  SetFieldViolations(&fake_.error, {{"jobs[1].depends_on[0].job", "there is no job 'outside'"},
                                    {"jobs[0].training.steps", "10 is too many here"},
                                    {"", "too many jobs"}});
  EXPECT_EQ(Run({"submit", "-f", file_}), 1);
  EXPECT_EQ(err_.str(), "too many jobs\n" + file_ + ":4:12: training.steps: 10 is too many here\n" + file_ +
                            ":8:14: depends_on[0].job: there is no job 'outside'\n");
}

TEST_F(CliTest, TrialsByGenerationAndOfOneGeneration) {
  EXPECT_EQ(Run({"get", "tiny", "--trials"}), 0);
  EXPECT_THAT(err_.str(), HasSubstr("has asked for no trials"));
  clock_.StepWall(absl::Seconds(100));
  for (int i = 1; i <= 12; ++i) {
    v1::GenerationSummary* one = fake_.job.add_generations();
    one->set_number(i);
    one->set_total_count(16);
    one->set_succeeded_count(15);
    one->set_failed_count(1);
    one->mutable_create_time()->set_seconds(1'700'000'000);
    one->mutable_end_time()->set_seconds(1'700'000'007);
  }
  v1::GenerationSummary* newest = fake_.job.mutable_generations(11);
  newest->set_label("stage 2");
  newest->set_succeeded_count(9);
  newest->set_running_count(4);
  newest->set_waiting_count(2);
  newest->clear_end_time();
  EXPECT_EQ(Run({"get", "tiny", "--trials"}), 0);
  EXPECT_THAT(out_.str(), testing::StartsWith("GENERATION  LABEL    TRIALS  WAITING  RUNNING  OK  FAILED  TIME\n"
                                              "1           -        16      0        0        15  1       7s\n"));
  EXPECT_THAT(out_.str(), testing::EndsWith("12          stage 2  16      2        4        9   1       1m 40s\n"));
  EXPECT_EQ(Run({"get", "tiny", "--trials", "-o", "json"}), 0);
  v1::Job told;
  ASSERT_TRUE(google::protobuf::util::JsonStringToMessage(out_.str(), &told).ok()) << out_.str();
  EXPECT_EQ(told.generations_size(), 12);
  fake_.job.set_state(v1::JOB_STATE_RUNNING);
  fake_.job.mutable_progress()->set_section("trials");
  EXPECT_EQ(Run({"get", "tiny"}), 0);
  EXPECT_THAT(out_.str(), testing::ContainsRegex("doing +generation 12 .stage 2.: 10 of 16 trials done, 4 running, 1 "
                                                 "failed"));
  fake_.job.set_state(v1::JOB_STATE_QUEUED);
  EXPECT_THAT(out_.str(), HasSubstr("12 generations: 186 of 192 trials done, 4 running, 12 failed"));
  EXPECT_THAT(out_.str(), HasSubstr("2 earlier ones: trainyard get tiny --trials\n"));
  EXPECT_EQ(Run({"cancel", "tiny"}), 0);
  EXPECT_EQ(out_.str(), "job tiny stopping, and so are its 6 trials that had not ended\n");
  EXPECT_EQ(Run({"explain", "tiny"}), 0);
  EXPECT_THAT(out_.str(), HasSubstr("Its generation 12 (stage 2): 10 of 16 trials done, 4 running, 1 failed."));

  for (const int index : {1, 0}) {
    v1::Job trial = fake_.job;
    trial.clear_generations();
    trial.set_uid(absl::StrCat("t-", index));
    trial.set_kind("prune_task");
    trial.set_parent_uid("u-1");
    trial.set_generation(12);
    trial.set_trial_index(index);
    trial.set_state(index == 0 ? v1::JOB_STATE_SUCCEEDED : v1::JOB_STATE_FAILED);
    trial.mutable_exit()->set_reason("NAN_LOSS");
    trial.mutable_start_time()->set_seconds(1'700'000'000);
    trial.mutable_end_time()->set_seconds(1'700'000'003);
    (*trial.mutable_result()->mutable_values())["kl"] = 0.25;
    fake_.trials.push_back(trial);
  }
  EXPECT_EQ(Run({"get", "tiny", "--generation", "12"}), 0);
  EXPECT_EQ(out_.str(),
            "TRIAL  STATE      KIND        TIME  UID  RESULT\n"
            "0      succeeded  prune_task  3s    t-0  kl=0.25\n"
            "1      failed     prune_task  3s    t-1  NAN_LOSS\n");
  EXPECT_EQ(fake_.lists.back().filter(), "parent=u-1 AND generation=12");
  EXPECT_TRUE(fake_.lists.back().include_trials());
  EXPECT_EQ(Run({"get", "tiny", "--generation", "0"}), 2);
  EXPECT_EQ(Run({"list", "--parent", "tiny", "--filter", "state=FAILED"}), 0);
  EXPECT_EQ(fake_.lists.back().filter(), "parent=u-1 AND state=FAILED");
  EXPECT_THAT(out_.str(), HasSubstr("12/0"));
  EXPECT_EQ(Run({"list", "--parent", "other"}), 3);
  EXPECT_EQ(Run({"list", "--all", "-q"}), 0);
  EXPECT_TRUE(fake_.lists.back().include_trials());
  EXPECT_EQ(fake_.lists.back().filter(), "");
  EXPECT_EQ(Run({"list"}), 0);
  EXPECT_FALSE(fake_.lists.back().include_trials());
}

TEST_F(CliTest, DocumentsOfTheResultComeAsTheyAre) {
  EXPECT_EQ(Run({"get", "tiny", "--document", "report"}), 3);
  EXPECT_THAT(err_.str(), HasSubstr("no document 'report'; the job is queued"));
  (*fake_.job.mutable_result()->mutable_documents())["report"] = "{\"a\": [1, 2]}";
  EXPECT_EQ(Run({"get", "tiny", "--document", "report", "-o", "yaml"}), 0);
  EXPECT_EQ(out_.str(), "{\"a\": [1, 2]}\n");
  EXPECT_EQ(Run({"get", "tiny", "--document", "fit"}), 3);
  EXPECT_THAT(err_.str(), HasSubstr("it has report"));
  EXPECT_EQ(Run({"get", "tiny"}), 0);
  EXPECT_THAT(out_.str(), testing::ContainsRegex("documents +report"));
  EXPECT_EQ(Run({"get", "tiny", "--document", "fit", "--trials"}), 2);
}

TEST_F(CliTest, WatchShowsHowFarTheGenerationIs) {
  const v1::WatchResponse running = Event(1, v1::JOB_STATE_RUNNING);
  v1::GenerationSummary* one = fake_.job.add_generations();  // no event tells it, so it is asked for
  one->set_number(3);
  one->set_total_count(8);
  one->set_succeeded_count(2);
  one->set_running_count(6);
  v1::WatchResponse progress = ProgressEvent(5);
  progress.mutable_progress()->mutable_progress()->set_section("trials");
  fake_.watch_script = {{{running, progress, Event(3, v1::JOB_STATE_SUCCEEDED)}, absl::OkStatus()}};
  EXPECT_EQ(Run({"watch", "tiny"}), 0) << err_.str();
  EXPECT_THAT(out_.str(), HasSubstr("50%  step 5/10  generation 3: 2 of 8 trials done, 6 running\n"));
}

TEST_F(CliTest, ExitCodesFollowTheStatus) {
  EXPECT_EQ(Run({"get", "tiny"}), 0);
  EXPECT_EQ(Run({"get", "other"}), 3);
  EXPECT_THAT(err_.str(), HasSubstr("no job other"));
  fake_.error = absl::PermissionDeniedError("not yours");
  EXPECT_EQ(Run({"get", "tiny"}), 4);
  fake_.error = absl::UnauthenticatedError("who are you");
  EXPECT_EQ(Run({"get", "tiny"}), 4);
  fake_.error = absl::FailedPreconditionError("ended");
  EXPECT_EQ(Run({"cancel", "tiny"}), 1);
  EXPECT_EQ(Run({"get"}), 2);
  EXPECT_EQ(Run({"gte", "tiny"}), 2);
  EXPECT_THAT(err_.str(), HasSubstr("there is no command 'gte', did you mean get?"));
  EXPECT_EQ(Run({}), 2);
  EXPECT_EQ(Run({"--help"}), 0);
  EXPECT_EQ(Run({"get", "tiny", "-o", "xml"}), 2);
  EXPECT_EQ(Run({"get", "tiny", "--address", "10.1.2.3:1"}), 2);
  EXPECT_THAT(err_.str(), HasSubstr("--insecure"));
}

TEST_F(CliTest, AnAbsentCoordinatorIsNamedWithAWayOut) {
  server_->Shutdown();
  EXPECT_EQ(Run({"list"}), 1);
  EXPECT_THAT(err_.str(), HasSubstr("The coordinator at " + server_->address() + " does not answer"));
  EXPECT_THAT(err_.str(), HasSubstr("trainyard-coordinator --listen"));
  EXPECT_EQ(out_.str(), "");
}

TEST_F(CliTest, ListTakesAllPagesAndOneJsonDocument) {
  EXPECT_EQ(Run({"list", "--filter", "state=QUEUED", "-o", "json"}), 0);
  v1::ListResponse list;
  ASSERT_TRUE(google::protobuf::util::JsonStringToMessage(out_.str(), &list).ok()) << out_.str();
  EXPECT_EQ(list.jobs_size(), 2);
  EXPECT_EQ(fake_.lists.size(), 2u);
  EXPECT_EQ(fake_.lists[0].filter(), "state=QUEUED");
  EXPECT_EQ(fake_.lists[0].namespace_(), "default");
  EXPECT_EQ(Run({"list", "-A", "-o", "name"}), 0);
  EXPECT_EQ(out_.str(), "tiny\nsecond\n");
  EXPECT_EQ(fake_.lists[2].namespace_(), "");
  EXPECT_EQ(Run({"list", "--limit", "1", "-o", "jsonl"}), 0);
  EXPECT_EQ(out_.str().find('\n'), out_.str().size() - 1);  // one line
  EXPECT_EQ(Run({"list"}), 0);
  EXPECT_THAT(out_.str(), testing::StartsWith("NAME    STATE   KIND"));
}

TEST_F(CliTest, TimesAreRfc3339InUtc) {
  fake_.job.mutable_submit_time()->set_seconds(1'700'000'000);
  EXPECT_EQ(Run({"get", "tiny", "-o", "json"}), 0);
  EXPECT_THAT(out_.str(), HasSubstr("\"submitTime\": \"2023-11-14T22:13:20Z\""));
  EXPECT_EQ(Run({"get", "tiny"}), 0);
  EXPECT_THAT(out_.str(), HasSubstr("2023-11-14T22:13:20Z"));
}

TEST_F(CliTest, WatchEndsWithTheJob) {
  fake_.watch_script = {{{Event(1, v1::JOB_STATE_QUEUED), Event(2, v1::JOB_STATE_RUNNING), ProgressEvent(5),
                          Event(3, v1::JOB_STATE_SUCCEEDED)},
                         absl::OkStatus()}};
  EXPECT_EQ(Run({"watch", "tiny"}), 0) << err_.str();
  EXPECT_THAT(out_.str(), HasSubstr("job tiny queued\njob tiny running\n"));
  EXPECT_THAT(out_.str(), HasSubstr("50%  step 5/10"));
  EXPECT_THAT(out_.str(), testing::EndsWith("job tiny succeeded\n"));
  EXPECT_THAT(out_.str(), Not(HasSubstr("\x1b")));  // plain, not a terminal
}

TEST_F(CliTest, WatchOfAFailedJobExitsWithSix) {
  fake_.job.mutable_exit()->set_reason("RANK_EXITED");
  fake_.job.mutable_exit()->set_message("rank 1 exited with 3");
  fake_.job.mutable_exit()->add_last_log_lines("out of memory");
  fake_.watch_script = {{{Event(1, v1::JOB_STATE_FAILED)}, absl::OkStatus()}};
  EXPECT_EQ(Run({"watch", "tiny"}), 6);
  EXPECT_EQ(out_.str(), "job tiny failed: RANK_EXITED: rank 1 exited with 3\n  | out of memory\n");
}

// The coordinator goes, comes back, and has forgotten old revisions: each time the watch goes on.
TEST_F(CliTest, WatchOutlivesRestartsOfTheCoordinator) {
  fake_.watch_script = {{{Event(7, v1::JOB_STATE_RUNNING)}, absl::UnavailableError("going away")},
                        {{Event(8, v1::JOB_STATE_RECOVERING)}, absl::OkStatus()},
                        {{}, absl::OutOfRangeError("compacted")},
                        {{Event(20, v1::JOB_STATE_SUCCEEDED)}, absl::OkStatus()}};
  EXPECT_EQ(Run({"watch", "tiny"}), 0) << err_.str();
  EXPECT_THAT(fake_.watches, ElementsAre(0, 7, 8, 0));
  EXPECT_THAT(err_.str(), HasSubstr("connection lost, trying again (the job goes on)"));
  EXPECT_THAT(err_.str(), HasSubstr("connected again"));
}

TEST_F(CliTest, CtrlCLeavesTheJobRunningAndSaysSo) {
  fake_.watch_script = {{{Event(1, v1::JOB_STATE_RUNNING)}, absl::OkStatus(), /*hang=*/true}};
  fake_.on_watch = [&] { interrupt_.Trigger(); };
  EXPECT_EQ(Run({"watch", "tiny"}), 130);
  EXPECT_THAT(err_.str(), HasSubstr("Stopped watching; the job goes on. Watch again: trainyard watch tiny"));
  EXPECT_EQ(fake_.actions.size(), 0u);
}

TEST_F(CliTest, ATerminalGetsOneLineThatIsDrawnOver) {
  is_terminal_ = true;
  fake_.watch_script = {
      {{Event(1, v1::JOB_STATE_RUNNING), ProgressEvent(1), ProgressEvent(2), Event(3, v1::JOB_STATE_SUCCEEDED)},
       absl::OkStatus()}};
  EXPECT_EQ(Run({"watch", "tiny"}), 0);
  EXPECT_THAT(out_.str(), HasSubstr("\r\x1b[K["));
  EXPECT_THAT(out_.str(), HasSubstr("step 2/10\njob tiny succeeded\n"));
}

TEST_F(CliTest, WaitKnowsStatesAndTimeouts) {
  fake_.watch_script = {{{Event(1, v1::JOB_STATE_RUNNING)}, absl::OkStatus(), true},
                        {{Event(1, v1::JOB_STATE_RUNNING)}, absl::OkStatus(), true},
                        {{Event(1, v1::JOB_STATE_CANCELLED)}, absl::OkStatus()},
                        {{Event(1, v1::JOB_STATE_CANCELLED)}, absl::OkStatus()},
                        {{Event(1, v1::JOB_STATE_SUCCEEDED)}, absl::OkStatus()}};
  EXPECT_EQ(Run({"wait", "tiny", "--for=running"}), 0) << err_.str();
  EXPECT_EQ(Run({"wait", "tiny", "--timeout", "200ms"}), 5);
  EXPECT_THAT(err_.str(), HasSubstr("job tiny is running after 200ms; it goes on"));
  EXPECT_EQ(Run({"wait", "tiny"}), 6);
  EXPECT_EQ(Run({"wait", "tiny", "--for=cancelled"}), 0);
  EXPECT_EQ(Run({"wait", "tiny", "--for", "running"}), 0);
  EXPECT_EQ(Run({"wait", "tiny", "--for", "happy"}), 2);
  EXPECT_EQ(Run({"wait", "tiny", "--timeout", "soon"}), 2);
  EXPECT_EQ(Run({"wait", "other"}), 3);
}

TEST_F(CliTest, LogsPrintWholeLinesByRank) {
  fake_.job.add_attempts()->set_number(1);
  v1::LogFrame gap = Frame(1, 100, "");
  gap.set_gap_bytes(96);
  fake_.log_script = {
      {{Frame(0, 0, "a\nb"), Frame(1, 0, "x\ny\n"), Frame(0, 3, "c\n"), gap, Frame(1, 100, "last")}, absl::OkStatus()}};
  EXPECT_EQ(Run({"logs", "tiny"}), 0) << err_.str();
  EXPECT_EQ(out_.str(),
            "[rank 0] a\n[rank 1] x\n[rank 1] y\n[rank 0] bc\n[rank 1] [96 bytes of stdout are gone]\n[rank 1] last\n");
  EXPECT_EQ(fake_.logs[0].rank(), -1);
  EXPECT_FALSE(fake_.logs[0].follow());
}

TEST_F(CliTest, FollowedLogsGoOnAtTheByteWhereTheyBroke) {
  fake_.job.add_attempts()->set_number(1);
  fake_.log_script = {{{Frame(0, 0, "one\ntw")}, absl::UnavailableError("restart")},
                      {{Frame(0, 4, "two\nthree\n")}, absl::OkStatus()}};  // two bytes again
  EXPECT_EQ(Run({"logs", "-f", "tiny", "--rank", "0"}), 0) << err_.str();
  EXPECT_EQ(out_.str(), "one\ntwo\nthree\n");
  EXPECT_EQ(fake_.logs[1].offset(), 6);
  EXPECT_EQ(fake_.logs[1].attempt(), 1);
}

TEST_F(CliTest, LogsOfThePreviousAttempt) {
  fake_.job.add_attempts()->set_number(1);
  EXPECT_EQ(Run({"logs", "tiny", "--previous"}), 3);
  fake_.job.add_attempts()->set_number(2);
  fake_.log_script = {{{}, absl::OkStatus()}};
  EXPECT_EQ(Run({"logs", "tiny", "--previous", "--stream", "stderr"}), 0);
  EXPECT_EQ(fake_.logs[0].attempt(), 1);
  EXPECT_EQ(fake_.logs[0].stream(), "stderr");
  EXPECT_EQ(Run({"logs", "tiny", "--since", "yesterday"}), 2);
}

TEST_F(CliTest, MetricsAsTablePlotAndJson) {
  EXPECT_EQ(Run({"metrics", "tiny", "--names", "loss,grad_norm"}), 0);
  EXPECT_THAT(fake_.metrics_request.names(), ElementsAre("loss", "grad_norm"));
  EXPECT_THAT(out_.str(), testing::StartsWith("STEP  ATTEMPT  loss  grad_norm\n0     1        10    -\n"));
  EXPECT_EQ(Run({"metrics", "--plot", "tiny"}), 0);
  EXPECT_THAT(out_.str(), testing::StartsWith("loss of tiny: 10 -> 5.25\n"));
  EXPECT_THAT(out_.str(), HasSubstr("19 step"));
  EXPECT_EQ(Run({"metrics", "tiny", "-o", "json"}), 0);
  v1::MetricsResponse metrics;
  ASSERT_TRUE(google::protobuf::util::JsonStringToMessage(out_.str(), &metrics).ok());
  EXPECT_EQ(metrics.points_size(), 20);
}

TEST_F(CliTest, ActionsCarryARequestId) {
  EXPECT_EQ(Run({"cancel", "tiny", "u-1"}), 0);
  EXPECT_EQ(out_.str(), "job tiny stopping\njob tiny stopping\n");
  EXPECT_EQ(fake_.actions[0].request_id().size(), 36u);
  EXPECT_NE(fake_.actions[0].request_id(), fake_.actions[1].request_id());
}

TEST_F(CliTest, WorkersExplainAndVersion) {
  EXPECT_EQ(Run({"workers", "-o", "jsonl"}), 0);
  EXPECT_THAT(out_.str(), HasSubstr("WORKER_STATE_READY"));
  EXPECT_EQ(Run({"workers"}), 0);
  EXPECT_THAT(out_.str(), testing::ContainsRegex("w-1 .* ready +1 +1 +1/2 \\(1 unhealthy\\) +1/2"));
  EXPECT_EQ(Run({"workers", "-o", "wide"}), 0);
  EXPECT_THAT(out_.str(), HasSubstr("2:unhealthy [GPU 1 Fake H100, 80 GiB, compute capability 9.0, GPU-1]: "
                                    "XID 79 since the host's boot"));
  fake_.job.mutable_pending()->set_code(v1::PendingReason::CODE_NOT_ENOUGH_SLOTS);
  fake_.job.mutable_pending()->set_message("needs 16 slots, 12 free");
  fake_.job.mutable_pending()->set_slots_needed(16);
  fake_.job.mutable_pending()->set_slots_free(12);
  fake_.job.mutable_pending()->set_slots_total(20);
  EXPECT_EQ(Run({"explain", "tiny"}), 0);
  EXPECT_THAT(out_.str(), HasSubstr("It needs 16 slots; 12 of 20 are free."));
  EXPECT_EQ(Run({"version"}), 0);
  EXPECT_THAT(out_.str(), HasSubstr("coordinator 9.9"));
  server_->Shutdown();
  EXPECT_EQ(Run({"version", "--client"}), 0);
  EXPECT_EQ(err_.str(), "");
}

TEST_F(CliTest, WorkersAreForgottenById) {
  EXPECT_EQ(Run({"worker", "forget", "w-1", "w-2"}), 0);
  EXPECT_THAT(fake_.forgotten, ElementsAre("w-1", "w-2"));
  EXPECT_EQ(out_.str(), "worker w-1 forgotten\nworker w-2 forgotten\n");
  EXPECT_EQ(Run({"worker", "forget", "w-3", "--quiet"}), 0);
  EXPECT_EQ(out_.str(), "w-3\n");
  EXPECT_EQ(Run({"worker"}), 2);
  EXPECT_EQ(Run({"worker", "forget"}), 2);
  fake_.forgotten.clear();
  fake_.error = ErrorWithReason(absl::StatusCode::kFailedPrecondition, "WORKER_NOT_LOST", "worker w-1 is READY");
  EXPECT_EQ(Run({"worker", "forget", "w-1", "w-2"}), 1);
  EXPECT_THAT(err_.str(), HasSubstr("worker w-1 is READY"));
  EXPECT_THAT(fake_.forgotten, ElementsAre("w-1"));
}

TEST_F(CliTest, LocalCommandsGoToTrainyardLocalUnchanged) {
  EXPECT_EQ(Run({"plan", "-f", "x", "--help"}), 1);
  EXPECT_THAT(err_.str(), HasSubstr("needs the program trainyard-local"));
  ASSERT_TRUE(MakeDirs(dir_.Join("bin/client")).ok());
  ASSERT_TRUE(MakeDirs(dir_.Join("bin/worker/tools")).ok());
  ASSERT_TRUE(WriteFileAtomic(dir_.Join("bin/worker/tools/trainyard-local"), "").ok());
  Run({"data", "tokenize", "--input", "a b"});
  EXPECT_THAT(executed_, ElementsAre(dir_.Join("bin/client/../worker/tools/trainyard-local"), "data", "tokenize",
                                     "--input", "a b"));
  ASSERT_TRUE(WriteFileAtomic(dir_.Join("bin/client/trainyard-local"), "").ok());
  Run({"run", "-f", "x"});
  EXPECT_EQ(executed_[0], dir_.Join("bin/client/trainyard-local"));
}

TEST_F(CliTest, CompletionKnowsCommandsAndFlags) {
  for (const char* shell : {"bash", "zsh", "fish"}) {
    EXPECT_EQ(Run({"completion", shell}), 0);
    EXPECT_THAT(out_.str(), HasSubstr("submit"));
    EXPECT_THAT(out_.str(), HasSubstr("dry-run"));
  }
  EXPECT_EQ(Run({"completion", "tcsh"}), 2);
}

}  // namespace
}  // namespace trainyard::client
