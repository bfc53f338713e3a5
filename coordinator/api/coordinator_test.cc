// The coordinator over real gRPC with fake workers: the scenarios of control-plane.md, section 10, that need one.
#include <grpcpp/grpcpp.h>

#include <atomic>
#include <set>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/testing/status_matchers.h"
#include "coordinator/core/transitions.h"
#include "coordinator/testing/scrape.h"
#include "coordinator/testing/test_coordinator.h"
#include "gtest/gtest.h"
#include "proto/rpc/channel.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/status.h"

namespace trainyard::coordinator {
namespace {

using ::testing::HasSubstr;

class CoordinatorTest : public ::testing::Test, protected TestCoordinator {
 protected:
  v1::Job Get(const std::string& job) {
    v1::GetRequest request;
    request.set_job(job);
    grpc::ClientContext context;
    v1::Job response;
    const grpc::Status status = jobs().Get(&context, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response;
  }

  using ActionCall = grpc::Status (v1::Jobs::Stub::*)(grpc::ClientContext*, const v1::JobActionRequest&, v1::Job*);
  absl::Status Act(ActionCall call, const std::string& job, v1::Job* response) {
    v1::JobActionRequest request;
    request.set_job(job);
    grpc::ClientContext context;
    return FromGrpcStatus((jobs().*call)(&context, request, response));
  }

  // Follows the job's events until one of them has the state.
  v1::Job AwaitState(const std::string& job, v1::JobState state) {
    v1::WatchRequest request;
    request.set_job(job);
    grpc::ClientContext context;
    SetDeadline(&context, absl::Seconds(20));
    auto stream = jobs().Watch(&context, request);
    v1::WatchResponse response;
    v1::Job last;
    while (stream->Read(&response)) {
      if (!response.has_job()) continue;
      last = response.job();
      if (last.state() == state) {
        context.TryCancel();
        stream->Finish();
        return last;
      }
    }
    ADD_FAILURE() << "job " << job << " never was " << ShortName(state) << " but " << last.ShortDebugString() << "; "
                  << stream->Finish().error_message();
    return last;
  }
};

TEST_F(CoordinatorTest, JobRunsFromSubmitToSuccess) {
  auto a = Worker("a", 1), b = Worker("b", 1);
  ASSERT_OK_AND_ASSIGN(const auto submitted, Submit(SpecForTests("train", 2)));
  EXPECT_EQ(submitted.job().name(), "train");
  EXPECT_TRUE(submitted.job().spec().has_seed());
  const auto assign_a = a->Await(IsAssign), assign_b = b->Await(IsAssign);
  ASSERT_TRUE(assign_a && assign_b);
  EXPECT_EQ(assign_a->assign().world_size(), 2);
  const auto start = a->Await(IsStart);
  ASSERT_TRUE(start);
  ASSERT_EQ(start->start().start().ranks_size(), 2);
  EXPECT_EQ(start->start().start().ranks(1).comm_address(), "address-1");
  AwaitState("train", v1::JOB_STATE_RUNNING);

  a->Commit(assign_a->assign().ref(), 5);
  const auto committed = a->Await(IsCheckpointAck);
  ASSERT_TRUE(committed);
  EXPECT_EQ(committed->checkpoint_ack().code(), 0) << committed->checkpoint_ack().message();

  v1::JobResult result;
  (*result.mutable_values())["final_loss"] = 2.5;
  a->Succeed(assign_a->assign(), result);
  b->Succeed(assign_b->assign(), {});
  const v1::Job job = AwaitState("train", v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(job.result().values().at("final_loss"), 2.5);
  EXPECT_EQ(job.committed_step(), 5);
  EXPECT_EQ(job.attempts(0).state(), v1::ATTEMPT_STATE_SUCCEEDED);
}

// Scenario 1, and a restart between the two calls.
TEST_F(CoordinatorTest, RepeatedSubmitMakesOneJobAlsoAcrossARestart) {
  ASSERT_OK_AND_ASSIGN(const auto first, Submit(SpecForTests("once"), "request-a"));
  EXPECT_FALSE(first.deduplicated());
  ASSERT_OK_AND_ASSIGN(const auto second, Submit(SpecForTests("once"), "request-a"));
  EXPECT_TRUE(second.deduplicated());
  EXPECT_EQ(second.job().uid(), first.job().uid());
  const auto other = Submit(SpecForTests("other"), "request-a");
  EXPECT_THAT(other, StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("request-a")));
  EXPECT_EQ(GetErrorReason(other.status()), "REQUEST_ID_REUSED");
  const uint64_t epoch = server().leader_epoch();
  Restart();
  EXPECT_EQ(server().leader_epoch(), epoch + 1);
  ASSERT_OK_AND_ASSIGN(const auto third, Submit(SpecForTests("once"), "request-a"));
  EXPECT_TRUE(third.deduplicated());
  EXPECT_EQ(third.job().uid(), first.job().uid());
}

// Scenario 2.
TEST_F(CoordinatorTest, OneOfManyClientsGetsTheName) {
  std::atomic<int> accepted{0}, refused{0};
  std::vector<std::thread> clients;
  for (int i = 0; i < 16; ++i) {
    clients.emplace_back([&] {
      for (int j = 0; j < 7; ++j) {
        const auto response = Submit(SpecForTests("same"));
        if (response.ok()) ++accepted;
        if (response.status().code() == absl::StatusCode::kAlreadyExists) ++refused;
      }
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(accepted, 1);
  EXPECT_EQ(refused, 16 * 7 - 1);
}

// Scenario 3: at no time do both gangs hold slots.
TEST_F(CoordinatorTest, GangsThatDoNotFitTogetherRunOneAfterTheOther) {
  auto a = Worker("a", 4), b = Worker("b", 4);
  ASSERT_OK(Submit(SpecForTests("five", 5)));
  ASSERT_OK(Submit(SpecForTests("six", 6)));
  const auto run = [&](const std::string& name, const std::string& other) {
    AwaitState(name, v1::JOB_STATE_RUNNING);
    const v1::Job waiting = Get(other);
    if (waiting.state() == v1::JOB_STATE_QUEUED) {
      EXPECT_EQ(waiting.pending().code(), v1::PendingReason::CODE_NOT_ENOUGH_SLOTS);
      EXPECT_THAT(waiting.pending().message(), HasSubstr("needs 6 cpu slots, 3 of 8 are free"));
      EXPECT_EQ(waiting.queue_position(), 1);
    }
    for (FakeWorker* worker : {a.get(), b.get()}) {
      const auto assign = worker->Await(IsAssign);
      ASSERT_TRUE(assign);
      worker->Succeed(assign->assign(), {});
    }
    AwaitState(name, v1::JOB_STATE_SUCCEEDED);
  };
  run("five", "six");
  run("six", "five");
}

// Scenario 9, the states that a real session shows; the core's scripts have the others.
TEST_F(CoordinatorTest, CancelWhileRunningStopsTheTasksAndIsIdempotent) {
  auto a = Worker("a", 2);
  ASSERT_OK(Submit(SpecForTests("victim", 2)));
  AwaitState("victim", v1::JOB_STATE_RUNNING);
  v1::Job job;
  ASSERT_OK(Act(&v1::Jobs::Stub::Cancel, "victim", &job));
  const auto stop = a->Await(IsStop);
  ASSERT_TRUE(stop);
  EXPECT_EQ(stop->stop().reason(), v1::STOP_REASON_CANCEL);
  EXPECT_TRUE(stop->stop().checkpoint());
  AwaitState("victim", v1::JOB_STATE_CANCELLED);
  ASSERT_OK(Act(&v1::Jobs::Stub::Cancel, "victim", &job));
  EXPECT_EQ(job.state(), v1::JOB_STATE_CANCELLED);
  EXPECT_THAT(Act(&v1::Jobs::Stub::Resume, "victim", &job),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("CANCELLED")));
}

// Scenario 10.
TEST_F(CoordinatorTest, ExitCodesDecideWhetherAJobIsTriedAgain) {
  auto a = Worker("a", 1);
  ASSERT_OK(Submit(SpecForTests("bad")));
  a->Fail(a->Await(IsAssign)->assign(), 65);
  v1::Job job = AwaitState("bad", v1::JOB_STATE_FAILED);
  EXPECT_EQ(job.attempts_size(), 1);
  EXPECT_EQ(job.exit().failure_class(), v1::FAILURE_CLASS_PERMANENT);
  EXPECT_EQ(job.exit().exit_code(), 65);

  ASSERT_OK(Submit(SpecForTests("stuck")));
  for (int attempt = 1; attempt <= 3; ++attempt) {
    const auto assign = a->Await(IsAssign);
    ASSERT_TRUE(assign) << attempt;
    EXPECT_EQ(assign->assign().ref().attempt(), attempt);
    a->Await(IsStart);
    a->Fail(assign->assign(), 75);
  }
  job = AwaitState("stuck", v1::JOB_STATE_FAILED);
  EXPECT_EQ(job.attempts_size(), 3);
  EXPECT_EQ(job.exit().reason(), "NO_PROGRESS");

  ASSERT_OK(Submit(SpecForTests("moving")));
  for (int attempt = 1; attempt <= 5; ++attempt) {
    const auto assign = a->Await(IsAssign);
    ASSERT_TRUE(assign) << attempt;
    EXPECT_EQ(assign->assign().checkpoints_size(), std::min(attempt - 1, 3));
    if (attempt > 1) {
      EXPECT_EQ(assign->assign().checkpoints(0).step(), 10 * (attempt - 1));
    }
    a->Await(IsStart);
    a->Commit(assign->assign().ref(), 10 * attempt);
    EXPECT_EQ(a->Await(IsCheckpointAck)->checkpoint_ack().code(), 0);
    a->Fail(assign->assign(), 75);
  }
  EXPECT_NE(Get("moving").state(), v1::JOB_STATE_FAILED);
}

// Section 4 of control-plane.md: tasks outlive the coordinator (CP-24), and nothing is started again.
TEST_F(CoordinatorTest, TasksSurviveARestartOfTheCoordinator) {
  auto a = Worker("a", 1);
  ASSERT_OK(Submit(SpecForTests("long")));
  const auto assign = a->Await(IsAssign);
  ASSERT_TRUE(assign);
  const v1::Job before = AwaitState("long", v1::JOB_STATE_RUNNING);
  a = nullptr;
  Restart();
  EXPECT_EQ(Get("long").state(), v1::JOB_STATE_RUNNING);
  v1::TaskReport running;
  *running.mutable_ref() = assign->assign().ref();
  running.set_state(v1::TASK_STATE_RUNNING);
  a = FakeWorker::Start({.coordinator = server().address(), .worker_id = "a"}, {running}, running.ref().fence());
  const auto registered = a->Await(IsRegistered);
  ASSERT_TRUE(registered);
  ASSERT_EQ(registered->registered().decisions_size(), 1);
  EXPECT_TRUE(registered->registered().decisions(0).keep());
  a->Succeed(assign->assign(), {});
  const v1::Job after = AwaitState("long", v1::JOB_STATE_SUCCEEDED);
  EXPECT_EQ(after.attempts_size(), 1);
  EXPECT_EQ(after.attempts(0).fence(), before.attempts(0).fence());
}

// Scenario 6: the zombie cannot commit, and its slot is free only after its report.
TEST_F(CoordinatorTest, PausedWorkerLosesItsTaskAndCannotCommit) {
  auto a = Worker("a", 1);
  ASSERT_OK(Submit(SpecForTests("moved")));
  const auto assign = a->Await(IsAssign);
  ASSERT_TRUE(assign);
  AwaitState("moved", v1::JOB_STATE_RUNNING);
  auto b = Worker("b", 1);
  a->PauseHeartbeats(true);
  const auto second = b->Await(IsAssign);
  ASSERT_TRUE(second);
  EXPECT_EQ(second->assign().ref().attempt(), 2);
  EXPECT_EQ(a->AwaitEnd(), grpc::StatusCode::ABORTED);

  v1::TaskReport running;
  *running.mutable_ref() = assign->assign().ref();
  running.set_state(v1::TASK_STATE_RUNNING);
  a = FakeWorker::Start({.coordinator = server().address(), .worker_id = "a", .is_obedient = false}, {running});
  const auto registered = a->Await(IsRegistered);
  ASSERT_TRUE(registered);
  EXPECT_FALSE(registered->registered().decisions(0).keep());
  a->Commit(assign->assign().ref(), 7);
  const auto refused = a->Await(IsCheckpointAck);
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->checkpoint_ack().code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(refused->checkpoint_ack().message(), HasSubstr("STALE_FENCE"));
  const auto slot_state = [&] {
    grpc::ClientContext context;
    v1::ListWorkersResponse workers;
    EXPECT_TRUE(jobs().ListWorkers(&context, {}, &workers).ok());
    return workers.workers(0).slots(0).state();
  };
  EXPECT_EQ(slot_state(), v1::SLOT_STATE_BUSY);
  a->Fail(assign->assign(), 0);
  while (slot_state() != v1::SLOT_STATE_FREE) std::this_thread::yield();
}

// Scenario 15.
TEST_F(CoordinatorTest, WorkerWhoseFencesAreAheadIsRefused) {
  auto a = FakeWorker::Start({.coordinator = server().address(), .worker_id = "a"}, {}, /*max_fence=*/1000);
  EXPECT_EQ(a->AwaitEnd(), grpc::StatusCode::FAILED_PRECONDITION);
}

TEST_F(CoordinatorTest, NewerDaemonOfAWorkerWins) {
  auto older = Worker("a", 1);
  ASSERT_TRUE(older->Await(IsRegistered));
  auto newer = FakeWorker::Start({.coordinator = server().address(), .worker_id = "a", .start_count = 2});
  ASSERT_TRUE(newer->Await(IsRegistered));
  EXPECT_EQ(older->AwaitEnd(), grpc::StatusCode::FAILED_PRECONDITION);
  auto again = Worker("a", 1);
  EXPECT_EQ(again->AwaitEnd(), grpc::StatusCode::FAILED_PRECONDITION);
}

// Scenario 16.
TEST_F(CoordinatorTest, SubmitWithATinyDeadlineIsSettledByARetry) {
  for (int i = 0; i < 20; ++i) {
    const std::string id = absl::StrCat("request-", i), name = absl::StrCat("job-", i);
    v1::SubmitRequest request;
    *request.mutable_spec() = SpecForTests(name);
    request.set_request_id(id);
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(1));
    v1::SubmitResponse response;
    const grpc::Status status = jobs().Submit(&context, request, &response);
    EXPECT_TRUE(status.ok() || status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED);
    EXPECT_OK(Submit(SpecForTests(name), id));
    EXPECT_EQ(Submit(SpecForTests(name), id)->deduplicated(), true);
  }
}

TEST_F(CoordinatorTest, BadSpecIsRefusedWithAllItsFields) {
  v1::JobSpec spec = SpecForTests("Bad_Name");
  spec.mutable_training()->set_steps(0);
  const auto response = Submit(spec);
  EXPECT_EQ(response.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_GE(GetFieldViolations(response.status()).size(), 2u);
}

TEST_F(CoordinatorTest, ValidateOnlyChangesNothing) {
  v1::SubmitRequest request;
  *request.mutable_spec() = SpecForTests("dry", 3);
  request.set_validate_only(true);
  grpc::ClientContext context;
  v1::SubmitResponse response;
  ASSERT_TRUE(jobs().Submit(&context, request, &response).ok());
  EXPECT_EQ(response.job().pending().slots_needed(), 3);
  EXPECT_EQ(response.job().uid(), "");
  grpc::ClientContext list_context;
  v1::ListResponse list;
  ASSERT_TRUE(jobs().List(&list_context, {}, &list).ok());
  EXPECT_EQ(list.jobs_size(), 0);
}

TEST_F(CoordinatorTest, ListPagesThroughAFilter) {
  for (int i = 0; i < 7; ++i) {
    v1::JobSpec spec = SpecForTests(absl::StrCat("job-", i));
    (*spec.mutable_labels())["team"] = i % 2 == 0 ? "nlp" : "vision";
    ASSERT_OK(Submit(spec));
  }
  std::vector<std::string> names;
  v1::ListRequest request;
  request.set_filter("label.team=nlp AND state=QUEUED");
  request.set_page_size(3);
  do {
    grpc::ClientContext context;
    v1::ListResponse response;
    ASSERT_TRUE(jobs().List(&context, request, &response).ok());
    for (const v1::Job& job : response.jobs()) names.push_back(job.name());
    request.set_page_token(response.next_page_token());
  } while (!request.page_token().empty());
  EXPECT_THAT(names, ::testing::ElementsAre("job-6", "job-4", "job-2", "job-0"));
  request.set_filter("colour=red");
  grpc::ClientContext context;
  v1::ListResponse response;
  EXPECT_EQ(jobs().List(&context, request, &response).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

// CP-51: resumed at a revision, the stream continues without a gap and without repeats.
TEST_F(CoordinatorTest, BatchIsOneCommitWithNamesOfItsOwn) {
  v1::SubmitBatchRequest request;
  request.set_request_id("2f9f0ac4-0f6e-4b86-9d5e-64f6a2d4f1aa");
  for (const char* name : {"train", "prepare"}) *request.add_specs() = SpecForTests(name);
  request.mutable_specs(0)->add_depends_on()->set_job("prepare");  // which comes later
  const auto submit = [&]() -> absl::StatusOr<v1::SubmitBatchResponse> {
    grpc::ClientContext context;
    SetDeadline(&context);
    v1::SubmitBatchResponse response;
    const grpc::Status status = jobs().SubmitBatch(&context, request, &response);
    if (!status.ok()) return FromGrpcStatus(status);
    return response;
  };
  ASSERT_OK_AND_ASSIGN(const auto first, submit());
  ASSERT_EQ(first.jobs_size(), 2);
  EXPECT_EQ(first.jobs(0).name(), "train");
  EXPECT_EQ(first.jobs(0).pending().code(), v1::PendingReason::CODE_WAITING_FOR_DEPENDENCY);
  EXPECT_EQ(first.jobs(0).pending().message(), "waits for prepare (QUEUED) to end");
  Restart();
  ASSERT_OK_AND_ASSIGN(const auto again, submit());
  EXPECT_TRUE(again.deduplicated());
  EXPECT_EQ(again.jobs(1).uid(), first.jobs(1).uid());

  auto a = Worker("a", 1);
  const auto prepare = a->Await(IsAssign);
  ASSERT_TRUE(prepare);
  EXPECT_EQ(prepare->assign().ref().job_uid(), first.jobs(1).uid());
  AwaitState("prepare", v1::JOB_STATE_RUNNING);
  a->Succeed(prepare->assign(), {});
  const auto train = a->Await(IsAssign);
  ASSERT_TRUE(train);
  EXPECT_EQ(train->assign().ref().job_uid(), first.jobs(0).uid());

  request.set_request_id("");
  for (v1::JobSpec& spec : *request.mutable_specs()) spec.set_name(spec.name() + "-2");
  request.mutable_specs(0)->mutable_depends_on(0)->set_job("prepare");
  request.mutable_specs(0)->add_depends_on()->set_job("nobody");
  request.mutable_specs(1)->mutable_training()->set_steps(-1);
  request.mutable_specs(1)->add_depends_on()->set_job("train-2");
  const absl::Status bad = submit().status();
  ASSERT_EQ(GetFieldViolations(bad).size(), 1u);  // what is wrong in itself, before what it refers to
  EXPECT_THAT(GetFieldViolations(bad)[0].path, HasSubstr("jobs[1].training"));
  request.mutable_specs(1)->mutable_training()->set_steps(1);
  EXPECT_EQ(GetFieldViolations(submit().status())[0].path, "jobs[0].depends_on[1].job");
  request.mutable_specs(0)->mutable_depends_on(1)->set_job("prepare-2");
  EXPECT_THAT(submit(), StatusIs(absl::StatusCode::kInvalidArgument,
                                 HasSubstr("jobs[0].depends_on[1].job: jobs that wait for each other: train-2 -> "
                                           "prepare-2 -> train-2")));
}

// CP-14: a generation of 1,000 trials, more than a common message holds, in one call over a real session.
TEST_F(CoordinatorTest, ThousandTrialsInOneCall) {
  constexpr int kTrials = 1000;
  auto a = FakeWorker::Start({.coordinator = server().address(), .worker_id = "a", .slots = 0, .driver_slots = 1});
  v1::JobSpec search = SpecForTests("search");
  search.clear_training();
  search.mutable_prune_search();
  ASSERT_OK_AND_ASSIGN(const auto submitted, Submit(search));
  const auto assign = a->Await(IsAssign);
  ASSERT_TRUE(assign);
  EXPECT_EQ(assign->assign().world_size(), 1);
  AwaitState("search", v1::JOB_STATE_RUNNING);

  v1::WorkerMessage message;
  *message.mutable_run_trials()->mutable_ref() = assign->assign().ref();
  v1::TrialGeneration& generation = *message.mutable_run_trials()->mutable_generation();
  generation.set_number(1);
  generation.set_label("first");
  for (int i = 0; i < kTrials; ++i) {
    v1::JobSpec& spec = *generation.add_specs();
    spec = SpecForTests("");
    for (const char* name : {"genome", "more"}) (*spec.mutable_annotations())[name] = std::string(4000, 'g');
  }
  EXPECT_GT(message.ByteSizeLong(), static_cast<size_t>(kMaxMessageBytes));
  const absl::Time begin = absl::Now();
  a->Send(message);
  auto ack = a->Await(IsTrialsAck, absl::Seconds(60));
  std::fprintf(stderr, "%d trials of %zu bytes committed in %s\n", kTrials, message.ByteSizeLong() / kTrials,
               absl::FormatDuration(absl::Now() - begin).c_str());
  ASSERT_TRUE(ack);
  EXPECT_EQ(ack->trials_ack().outcomes().code(), 0) << ack->trials_ack().outcomes().message();
  const v1::Job parent = Get("search");
  ASSERT_EQ(parent.generations_size(), 1);
  EXPECT_EQ(parent.generations(0).total_count(), kTrials);
  EXPECT_EQ(parent.generations(0).waiting_count(), kTrials);

  const auto count = [&](const std::string& filter, bool include_trials) {
    v1::ListRequest request;
    request.set_filter(filter);
    request.set_include_trials(include_trials);
    request.set_page_size(1000);
    int found = 0;
    do {
      grpc::ClientContext context;
      v1::ListResponse response;
      const grpc::Status status = jobs().List(&context, request, &response);
      EXPECT_TRUE(status.ok()) << status.error_message();
      found += response.jobs_size();
      request.set_page_token(response.next_page_token());
    } while (!request.page_token().empty());
    return found;
  };
  EXPECT_EQ(count("", false), 1);
  EXPECT_EQ(count("state=QUEUED", false), 0);
  EXPECT_EQ(count("", true), kTrials + 1);
  EXPECT_EQ(count("parent=" + parent.uid(), false), kTrials);
  EXPECT_EQ(count("parent=" + parent.uid() + " AND generation=2", false), 0);
  EXPECT_EQ(count("generation!=1", true), 1);

  // Again, as after a lost connection; then the parent is cancelled and takes them along.
  a->Send(message);
  ASSERT_TRUE(a->Await(IsTrialsAck, absl::Seconds(60)));
  EXPECT_EQ(count("parent=" + parent.uid(), false), kTrials);
  v1::Job cancelled;
  ASSERT_OK(Act(&v1::Jobs::Stub::Cancel, "search", &cancelled));
  EXPECT_EQ(count("state=CANCELLED", true),
            kTrials + (AwaitState("search", v1::JOB_STATE_CANCELLED).uid() != "" ? 1 : 0));
}

// A watch of all jobs tells what a list does: trials, their progress and their history only if they are asked for.
TEST_F(CoordinatorTest, AWatchOfAllJobsHasNoTrialsUnasked) {
  auto a = FakeWorker::Start({.coordinator = server().address(), .worker_id = "a", .slots = 1, .driver_slots = 1});
  v1::JobSpec search = SpecForTests("search");
  search.clear_training();
  search.mutable_prune_search();
  ASSERT_OK(Submit(search));
  const auto assign = a->Await(IsAssign);
  ASSERT_TRUE(assign);
  AwaitState("search", v1::JOB_STATE_RUNNING);
  v1::WorkerMessage message;
  *message.mutable_run_trials()->mutable_ref() = assign->assign().ref();
  v1::TrialGeneration& generation = *message.mutable_run_trials()->mutable_generation();
  generation.set_number(1);
  *generation.add_specs() = SpecForTests("");
  a->Send(message);
  ASSERT_TRUE(a->Await(IsTrialsAck));
  const auto trial = a->Await(IsAssign);
  ASSERT_TRUE(trial);
  const std::string uid = trial->assign().ref().job_uid();
  AwaitState(uid, v1::JOB_STATE_RUNNING);  // one job by uid is watched, whatever it is
  a->Succeed(trial->assign(), {});
  AwaitState(uid, v1::JOB_STATE_SUCCEEDED);

  // Uids of the events up to the first bookmark: of the state now, or of the history since `after`.
  const auto watched = [&](uint64_t after, bool include_trials) {
    v1::WatchRequest request;
    request.set_after_revision(after);
    request.set_include_trials(include_trials);
    grpc::ClientContext context;
    SetDeadline(&context);
    auto stream = jobs().Watch(&context, request);
    std::set<std::string> uids;
    v1::WatchResponse response;
    while (stream->Read(&response) && !response.has_bookmark()) uids.insert(response.job().uid());
    context.TryCancel();
    stream->Finish();
    return uids;
  };
  const std::string parent = Get("search").uid();
  for (const uint64_t after : {uint64_t{0}, uint64_t{1}}) {
    EXPECT_THAT(watched(after, false), ::testing::ElementsAre(parent)) << after;
    EXPECT_THAT(watched(after, true), ::testing::UnorderedElementsAre(parent, uid)) << after;
  }
}

TEST_F(CoordinatorTest, WatchResumesWhereItStopped) {
  ASSERT_OK(Submit(SpecForTests("first")));
  v1::WatchRequest request;
  uint64_t seen = 0;
  {
    grpc::ClientContext context;
    auto stream = jobs().Watch(&context, request);
    v1::WatchResponse response;
    while (stream->Read(&response) && !response.has_bookmark()) seen = response.revision();
    context.TryCancel();
    stream->Finish();
  }
  v1::Job job;
  ASSERT_OK(Act(&v1::Jobs::Stub::Suspend, "first", &job));
  ASSERT_OK(Act(&v1::Jobs::Stub::Resume, "first", &job));
  ASSERT_OK(Act(&v1::Jobs::Stub::Cancel, "first", &job));
  Restart();  // history survives
  request.set_after_revision(seen);
  grpc::ClientContext context;
  auto stream = jobs().Watch(&context, request);
  std::vector<v1::JobState> states;
  v1::WatchResponse response;
  while (stream->Read(&response) && !response.has_bookmark()) {
    EXPECT_EQ(response.revision(), ++seen);
    states.push_back(response.job().state());
  }
  EXPECT_THAT(states, ::testing::ElementsAre(v1::JOB_STATE_SUSPENDED, v1::JOB_STATE_QUEUED, v1::JOB_STATE_CANCELLED));
  context.TryCancel();
  stream->Finish();
  request.set_after_revision(1'000'000);
  grpc::ClientContext late;
  auto refused = jobs().Watch(&late, request);
  EXPECT_FALSE(refused->Read(&response));
  EXPECT_EQ(refused->Finish().error_code(), grpc::StatusCode::OUT_OF_RANGE);
}

// CP-11, CP-52: chunks out of order, twice and with a gap; followed to the end of the attempt.
TEST_F(CoordinatorTest, LogsArriveOnceInOrderWithTheirGaps) {
  auto a = Worker("a", 1);
  ASSERT_OK(Submit(SpecForTests("talker")));
  const auto assign = a->Await(IsAssign);
  ASSERT_TRUE(assign);
  AwaitState("talker", v1::JOB_STATE_RUNNING);
  const auto send = [&](int64_t offset, const std::string& data, int64_t gap, bool end) {
    v1::WorkerMessage message;
    v1::LogChunk& chunk = *message.mutable_log();
    *chunk.mutable_ref() = assign->assign().ref();
    chunk.set_stream("stdout");
    chunk.set_offset(offset);
    chunk.set_data(data);
    chunk.set_gap_bytes(gap);
    chunk.set_end(end);
    a->Send(message);
    return a->Await(IsLogAck)->log_ack().next_offset();
  };
  EXPECT_EQ(send(0, "hello ", 0, false), 6);
  EXPECT_EQ(send(10, "early", 0, false), 6);  // refused: what is between is missing
  EXPECT_EQ(send(3, "lo world\n", 0, false), 12);
  std::string text;
  int64_t gaps = 0;
  std::thread follower([&] {
    v1::LogsRequest request;
    request.set_job("talker");
    request.set_follow(true);
    grpc::ClientContext context;
    SetDeadline(&context, absl::Seconds(20));
    auto stream = jobs().Logs(&context, request);
    v1::LogFrame frame;
    while (stream->Read(&frame)) {
      text += frame.data();
      gaps += frame.gap_bytes();
    }
    EXPECT_TRUE(stream->Finish().ok());
  });
  EXPECT_EQ(send(20, "after", 8, false), 25);
  EXPECT_EQ(send(25, "!", 0, true), 26);
  v1::WorkerMessage end;
  *end.mutable_log()->mutable_ref() = assign->assign().ref();
  end.mutable_log()->set_stream("stderr");
  end.mutable_log()->set_end(true);
  a->Send(end);
  a->Succeed(assign->assign(), {});
  follower.join();
  EXPECT_EQ(text, "hello world\nafter!");
  EXPECT_EQ(gaps, 8);
}

TEST_F(CoordinatorTest, MetricsOfAJobAreKept) {
  auto a = Worker("a", 1);
  ASSERT_OK(Submit(SpecForTests("measured")));
  const auto assign = a->Await(IsAssign);
  ASSERT_TRUE(assign);
  v1::WorkerMessage message;
  *message.mutable_progress()->mutable_ref() = assign->assign().ref();
  message.mutable_progress()->mutable_progress()->set_step(3);
  for (int step = 1; step <= 3; ++step) {
    v1::MetricSample& sample = *message.mutable_progress()->add_samples();
    sample.set_step(step);
    (*sample.mutable_values())["loss"] = 4.0 - step;
  }
  a->Send(message);
  while (Get("measured").progress().step() != 3) std::this_thread::yield();
  v1::JobActionRequest cancel;
  v1::Job job;
  ASSERT_OK(Act(&v1::Jobs::Stub::Cancel, "measured", &job));  // its commit takes the points along
  v1::MetricsRequest request;
  request.set_job("measured");
  request.add_names("loss");
  request.set_after_step(1);
  grpc::ClientContext context;
  v1::MetricsResponse response;
  ASSERT_TRUE(jobs().Metrics(&context, request, &response).ok());
  ASSERT_EQ(response.points_size(), 2);
  EXPECT_EQ(response.points(1).values().at("loss"), 1.0);
}

// CP-68, CP-69: known series exist from the start, and no label holds a job.
TEST_F(CoordinatorTest, MetricsAreServedWithoutNamesOfJobs) {
  ASSERT_OK_AND_ASSIGN(const auto submitted, Submit(SpecForTests("some-job")));
  ASSERT_OK(Submit(SpecForTests("other-job")));
  const std::string text = HttpGet(server().metrics_address());
  EXPECT_THAT(text, HasSubstr("trainyard_invariant_violations_total 0"));
  EXPECT_THAT(text, HasSubstr("trainyard_slots{state=\"free\",type=\"gpu\"} 0"));
  EXPECT_THAT(text, HasSubstr("trainyard_submit_duration_seconds_count 2"));
  EXPECT_THAT(text, HasSubstr("trainyard_job_transitions_total"));
  EXPECT_THAT(text, ::testing::Not(HasSubstr("some-job")));
  EXPECT_THAT(text, ::testing::Not(HasSubstr(submitted.job().uid())));
}

TEST_F(CoordinatorTest, SecondCoordinatorOnTheSameFolderIsRefused) {
  CoordinatorOptions options;
  options.listen = "127.0.0.1:0";
  options.data_dir = dir().path();
  EXPECT_THAT(CoordinatorServer::Start(options),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("another coordinator")));
}

}  // namespace
}  // namespace trainyard::coordinator
