// Writing: asynchronous, divided, atomic, and harmless when it fails.
#include "worker/ckpt/checkpointer.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>

#include "absl/strings/str_cat.h"
#include "base/mutex.h"
#include "base/testing/status_matchers.h"
#include "base/testing/temp_dir.h"
#include "gtest/gtest.h"
#include "worker/comm/local/local_communicator.h"

namespace trainyard::ckpt {
namespace {

using kernels::DType;
using kernels::TensorView;
using ::testing::HasSubstr;

constexpr int kTensors = 5;

// Five tensors of 4000 floats, all with one value, equal on all ranks; a local one with the rank.
struct State {
  explicit State(int rank = 0) : local(static_cast<float>(rank)) {}
  void Set(float value) {
    for (auto& tensor : tensors) tensor.assign(4000, value);
  }
  absl::Status Save(CheckpointWriter& writer) {
    for (int i = 0; i < kTensors; ++i) {
      writer.AddTensor(absl::StrCat("t", i), TensorView(tensors[i].data(), DType::kF32, {40, 100}));
    }
    writer.AddLocalTensor("rank", TensorView(&local, DType::kF32, {1}));
    writer.AddText("step", absl::StrCat(tensors[0][0]));
    return absl::OkStatus();
  }
  SaveFunction saver() {
    return [this](CheckpointWriter& writer) { return Save(writer); };
  }
  std::vector<float> tensors[kTensors];
  float local;
};

CheckpointerOptions OptionsFor(const TempDir& root, int attempt = 1, uint64_t fence = 7) {
  CheckpointerOptions options;
  options.job_root = root.path();
  options.job_uid = "job";
  options.attempt = attempt;
  options.fence = fence;
  return options;
}

// The value in all tensors of a checkpoint, or NaN if they differ.
float ValueIn(const TempDir& root, const v1::CheckpointManifest& manifest) {
  auto reader = CheckpointReader::Open(root.path(), manifest, 0);
  EXPECT_OK(reader);
  if (!reader.ok()) return NAN;
  std::vector<float> values(4000);
  for (int i = 0; i < kTensors; ++i) {
    EXPECT_OK((*reader)->ReadTensor(absl::StrCat("t", i), TensorView(values.data(), DType::kF32, {40, 100})));
    for (float value : values) {
      if (value != values[0]) return NAN;
    }
  }
  return values[0];
}

std::vector<std::string> StepsOf(const TempDir& root, const std::string& attempt = "attempt-1-fence-7") {
  auto names = ListDir(root.Join(attempt + "/checkpoints"));
  return names.ok() ? *names : std::vector<std::string>{};
}

// The coordinator's side: commits, refuses, or keeps one waiting.
class Coordinator {
 public:
  CommitFunction function() {
    return [this](const v1::CheckpointManifest& manifest) { return Commit(manifest); };
  }
  void Answer(const absl::Status& status) {
    MutexLock lock(&mutex_);
    answer_ = status;
  }
  void Hold(bool held) {
    MutexLock lock(&mutex_);
    held_ = held;
    changed_.NotifyAll();
  }
  void WaitUntilAsked(size_t count) {
    MutexLock lock(&mutex_);
    while (asked_ < count) changed_.Wait(&mutex_);
  }
  std::vector<v1::CheckpointManifest> committed() {  // newest first
    MutexLock lock(&mutex_);
    return committed_;
  }

 private:
  absl::Status Commit(const v1::CheckpointManifest& manifest) {
    MutexLock lock(&mutex_);
    ++asked_;
    changed_.NotifyAll();
    while (held_) changed_.Wait(&mutex_);
    if (answer_.ok()) committed_.insert(committed_.begin(), manifest);
    return answer_;
  }
  Mutex mutex_;
  CondVar changed_;
  absl::Status answer_ ABSL_GUARDED_BY(mutex_);
  bool held_ ABSL_GUARDED_BY(mutex_) = false;
  size_t asked_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<v1::CheckpointManifest> committed_ ABSL_GUARDED_BY(mutex_);
};

TEST(CheckpointerTest, ASnapshotIsWhatTheStateWasHoweverItChangesAfterwards) {
  TempDir root;
  Coordinator coordinator;
  State state;
  auto checkpointer = Checkpointer::Create(OptionsFor(root), nullptr, coordinator.function());
  state.Set(1);
  ASSERT_OK_AND_ASSIGN(const int64_t reserved, checkpointer->Reserve(state.saver()));
  EXPECT_GE(reserved, kTensors * 16000 + 4);
  coordinator.Hold(true);
  ASSERT_OK(checkpointer->Snapshot(100, state.saver()));
  state.Set(2);  // training goes on at once
  coordinator.WaitUntilAsked(1);
  EXPECT_TRUE(checkpointer->busy());
  EXPECT_EQ(checkpointer->committed_step(), -1);
  coordinator.Hold(false);
  const CheckpointResult result = checkpointer->Wait();
  EXPECT_OK(result.status);
  EXPECT_EQ(result.step, 100);
  EXPECT_GT(result.bytes, kTensors * 16000);
  EXPECT_EQ(checkpointer->committed_step(), 100);
  EXPECT_EQ(ValueIn(root, coordinator.committed()[0]), 1);
}

TEST(CheckpointerTest, RanksDivideTheTensorsAndAllReadAll) {
  for (int ranks : {2, 3}) {
    TempDir root;
    Coordinator coordinator;
    auto communicators = comm::MakeLocalCommunicators(ranks);
    std::vector<std::thread> threads;
    for (int rank = 0; rank < ranks; ++rank) {
      threads.emplace_back([&, rank] {
        State state(rank);
        auto checkpointer = Checkpointer::Create(OptionsFor(root), communicators[static_cast<size_t>(rank)].get(),
                                                 coordinator.function());
        for (int step : {1, 2, 3}) {
          state.Set(static_cast<float>(step));
          ASSERT_OK(checkpointer->Snapshot(step, state.saver()));
        }
        EXPECT_OK(checkpointer->Wait().status);
        EXPECT_EQ(checkpointer->committed_step(), 3);
      });
    }
    for (std::thread& thread : threads) thread.join();
    const std::vector<v1::CheckpointManifest> committed = coordinator.committed();
    ASSERT_EQ(committed.size(), 3u);  // rank 0 asked, and only it
    EXPECT_EQ(committed[0].shards_size(), ranks);
    int64_t bytes = 0;
    for (const v1::CheckpointShard& shard : committed[0].shards()) {
      EXPECT_LT(shard.bytes(), (kTensors / 2 + 1) * 16000 + 4000);  // nobody writes all
      bytes += shard.bytes();
    }
    EXPECT_LT(bytes, kTensors * 16000 + ranks * 2000);  // nothing twice
    EXPECT_EQ(ValueIn(root, committed[0]), 3);
    for (int rank = 0; rank < ranks; ++rank) {
      ASSERT_OK_AND_ASSIGN(const auto reader, CheckpointReader::Open(root.path(), committed[0], rank));
      float local = -1;
      ASSERT_OK(reader->ReadLocalTensor("rank", TensorView(&local, DType::kF32, {1})));
      EXPECT_EQ(local, static_cast<float>(rank));
      EXPECT_EQ(*reader->Text("step"), "3");
    }
  }
}

TEST(CheckpointerTest, KeepsTheLastAndRemovesWhatDeadAttemptsLeft) {
  TempDir root;
  Coordinator coordinator;
  State state;
  {
    auto first = Checkpointer::Create(OptionsFor(root), nullptr, coordinator.function());
    for (int step : {10, 20}) {
      state.Set(static_cast<float>(step));
      ASSERT_OK(first->Snapshot(step, state.saver()));
    }
    coordinator.Hold(false);
  }
  ASSERT_OK(MakeDirs(root.Join("attempt-1-fence-7/checkpoints/step-00000030")));  // never committed
  CheckpointerOptions options = OptionsFor(root, 2, 9);
  options.keep_last = 2;
  options.committed = coordinator.committed();
  auto second = Checkpointer::Create(options, nullptr, coordinator.function());
  EXPECT_EQ(second->committed_step(), 20);
  EXPECT_EQ(StepsOf(root).size(), 3u);  // nothing goes before something new is there
  ASSERT_OK(second->Snapshot(30, state.saver()));
  EXPECT_OK(second->Wait().status);
  EXPECT_EQ(StepsOf(root), std::vector<std::string>({"step-00000020"}));
  ASSERT_OK(second->Snapshot(40, state.saver()));
  EXPECT_OK(second->Wait().status);
  EXPECT_TRUE(StepsOf(root).empty());
  EXPECT_EQ(StepsOf(root, "attempt-2-fence-9"), std::vector<std::string>({"step-00000030", "step-00000040"}));
}

TEST(CheckpointerTest, ARefusedCommitRemovesTheFilesAndCountsForNothing) {
  TempDir root;
  Coordinator coordinator;
  State state;
  state.Set(1);
  auto checkpointer = Checkpointer::Create(OptionsFor(root), nullptr, coordinator.function());
  coordinator.Answer(absl::FailedPreconditionError("STALE_FENCE: attempt 2 is live"));
  ASSERT_OK(checkpointer->Snapshot(10, state.saver()));
  EXPECT_THAT(checkpointer->Wait().status, StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("STALE_FENCE")));
  EXPECT_TRUE(StepsOf(root).empty());
  EXPECT_EQ(checkpointer->committed_step(), -1);
}

// The coordinator may have committed before the answer was lost: its record must not point to nothing.
TEST(CheckpointerTest, AnUnknownOutcomeKeepsTheFiles) {
  TempDir root;
  Coordinator coordinator;
  State state;
  state.Set(1);
  auto checkpointer = Checkpointer::Create(OptionsFor(root), nullptr, coordinator.function());
  coordinator.Answer(absl::DeadlineExceededError("no answer"));
  ASSERT_OK(checkpointer->Snapshot(10, state.saver()));
  EXPECT_THAT(checkpointer->Wait().status, StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("commit")));
  EXPECT_EQ(StepsOf(root), std::vector<std::string>({"step-00000010"}));
  EXPECT_EQ(checkpointer->committed_step(), -1);
}

// A limit on file size gives what a full disk gives, a write that fails half way.
TEST(CheckpointerTest, AFullDiskFailsTheCheckpointOnAllRanksAndLeavesNothing) {
  signal(SIGXFSZ, SIG_IGN);
  rlimit unlimited{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &unlimited), 0);
  TempDir root;
  Coordinator coordinator;
  auto communicators = comm::MakeLocalCommunicators(2);
  std::vector<std::unique_ptr<Checkpointer>> checkpointers;
  std::vector<State> states = {State(0), State(1)};
  for (size_t rank = 0; rank < 2; ++rank) {
    checkpointers.push_back(Checkpointer::Create(OptionsFor(root), communicators[rank].get(), coordinator.function()));
    states[rank].Set(5);
  }
  const auto save = [&](int64_t step) {
    for (size_t rank = 0; rank < 2; ++rank) ASSERT_OK(checkpointers[rank]->Snapshot(step, states[rank].saver()));
  };
  // Rank 0 writes three tensors, rank 1 two: only rank 0's file is too long.
  rlimit limited = unlimited;
  limited.rlim_cur = 2 * 16000 + 8000;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limited), 0);
  save(10);
  for (auto& checkpointer : checkpointers) {
    EXPECT_THAT(checkpointer->Wait().status,
                StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("rank 0: write ")));
  }
  EXPECT_TRUE(StepsOf(root).empty());
  EXPECT_TRUE(coordinator.committed().empty());
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &unlimited), 0);
  save(20);  // the next one is tried again
  for (auto& checkpointer : checkpointers) EXPECT_OK(checkpointer->Wait().status);
  EXPECT_EQ(ValueIn(root, coordinator.committed()[0]), 5);
}

TEST(CheckpointerTest, APeerThatIsGoneFailsTheCheckpoint) {
  TempDir root;
  Coordinator coordinator;
  auto communicators = comm::MakeLocalCommunicators(2);
  State state;
  state.Set(1);
  auto checkpointer = Checkpointer::Create(OptionsFor(root), communicators[0].get(), coordinator.function());
  communicators[1].reset();
  ASSERT_OK(checkpointer->Snapshot(10, state.saver()));
  EXPECT_THAT(checkpointer->Wait().status, StatusIs(absl::StatusCode::kUnavailable, HasSubstr("gathering")));
  EXPECT_TRUE(StepsOf(root).empty());
}

TEST(CheckpointerTest, RefusesTwoTensorsOfOneName) {
  TempDir root;
  Coordinator coordinator;
  auto checkpointer = Checkpointer::Create(OptionsFor(root), nullptr, coordinator.function());
  float x = 0;
  EXPECT_THAT(checkpointer->Snapshot(1,
                                     [&](CheckpointWriter& writer) {
                                       writer.AddTensor("x", TensorView(&x, DType::kF32, {1}));
                                       writer.AddTensor("x", TensorView(&x, DType::kF32, {1}));
                                       return absl::OkStatus();
                                     }),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("two tensors named x")));
  EXPECT_THAT(checkpointer->Snapshot(1, [&](CheckpointWriter&) { return absl::InternalError("no"); }),
              StatusIs(absl::StatusCode::kInternal, HasSubstr("no")));
}

// Killed when the shard is on disk and the manifest is not, which is when rank 0 asks the others for their shards.
TEST(CheckpointerTest, AKillBetweenShardAndManifestLeavesNothingToResumeFrom) {
  TempDir root;
  const pid_t pid = fork();
  ASSERT_GE(pid, 0);
  if (pid == 0) {
    auto communicators = comm::MakeLocalCommunicators(2);  // rank 1 never comes, so rank 0 waits there
    State state;
    state.Set(1);
    Coordinator coordinator;
    auto checkpointer = Checkpointer::Create(OptionsFor(root), communicators[0].get(), coordinator.function());
    checkpointer->Snapshot(10, state.saver()).IgnoreError();
    while (!FileExists(root.Join("attempt-1-fence-7/checkpoints/step-00000010/rank-0.safetensors"))) usleep(1000);
    kill(getpid(), SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(StepsOf(root), std::vector<std::string>({"step-00000010"}));
  EXPECT_FALSE(FileExists(root.Join("attempt-1-fence-7/checkpoints/step-00000010/manifest.json")));
  // The next attempt starts from nothing, and clears up once it has something.
  EXPECT_TRUE(absl::IsNotFound(CheckpointReader::OpenNewest(root.path(), {}, 0).status()));
  Coordinator coordinator;
  State state;
  state.Set(2);
  auto next = Checkpointer::Create(OptionsFor(root, 2, 8), nullptr, coordinator.function());
  ASSERT_OK(next->Snapshot(10, state.saver()));
  EXPECT_OK(next->Wait().status);
  EXPECT_TRUE(StepsOf(root).empty());
  EXPECT_EQ(ValueIn(root, coordinator.committed()[0]), 2);
}

}  // namespace
}  // namespace trainyard::ckpt
