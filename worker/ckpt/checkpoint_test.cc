// Reading: what a checkpoint gives back, and what it refuses.
#include "worker/ckpt/checkpoint.h"

#include <cstring>
#include <filesystem>
#include <fstream>
#include <thread>
#include <utility>

#include "base/testing/status_matchers.h"
#include "base/testing/temp_dir.h"
#include "gtest/gtest.h"
#include "worker/ckpt/checkpointer.h"
#include "worker/comm/local/local_communicator.h"

namespace trainyard::ckpt {
namespace {

using kernels::BFloat16;
using kernels::DType;
using kernels::TensorView;
using ::testing::AllOf;
using ::testing::HasSubstr;

struct State {
  State() {
    for (size_t i = 0; i < weights.size(); ++i) weights[i] = static_cast<float>(i) * 0.37f - 5.0f;
    for (size_t i = 0; i < moments.size(); ++i) moments[i].bits = static_cast<uint16_t>(i * 977);  // NaNs too
  }
  absl::Status Save(CheckpointWriter& writer) {
    writer.AddTensor("weights", TensorView(weights.data(), DType::kF32, {20, 15}));
    writer.AddTensor("moments", TensorView(moments.data(), DType::kBF16, {77}));
    writer.AddTensor("empty", TensorView(nullptr, DType::kF32, {0, 4}));
    writer.AddLocalTensor("feedback", TensorView(&feedback, DType::kF32, {1}));
    writer.AddText("rng", "seed 5 \"quoted\" \n");
    writer.AddLocalText("loader", "epoch 3");
    return absl::OkStatus();
  }
  std::vector<float> weights = std::vector<float>(300);
  std::vector<BFloat16> moments = std::vector<BFloat16>(77);
  float feedback = 0.25f;
};

class CheckpointReaderTest : public ::testing::Test {
 protected:
  v1::CheckpointManifest Write(int64_t step) {
    v1::CheckpointManifest manifest;
    CheckpointerOptions options;
    options.job_root = root_.path();
    options.job_uid = "job";
    options.attempt = 1;
    options.fence = 7;
    options.spec_digest = "spec";
    auto checkpointer = Checkpointer::Create(options, nullptr, [&](const v1::CheckpointManifest& committed) {
      manifest = committed;
      return absl::OkStatus();
    });
    EXPECT_OK(checkpointer->Snapshot(step, [&](CheckpointWriter& writer) { return state_.Save(writer); }));
    EXPECT_OK(checkpointer->Wait().status);
    return manifest;
  }
  std::string ShardOf(const v1::CheckpointManifest& manifest) {
    return JoinPath(root_.Join(manifest.directory()), manifest.shards(0).file());
  }

  TempDir root_;
  State state_;
};

TEST_F(CheckpointReaderTest, GivesBackEveryBit) {
  const v1::CheckpointManifest manifest = Write(42);
  ASSERT_OK_AND_ASSIGN(const auto reader, CheckpointReader::Open(root_.path(), manifest, 0));
  EXPECT_EQ(reader->step(), 42);
  EXPECT_EQ(reader->TensorNames(), std::vector<std::string>({"empty", "moments", "weights"}));
  std::vector<float> weights(300);
  std::vector<BFloat16> moments(77);
  float feedback = 0;
  EXPECT_OK(reader->ReadTensor("weights", TensorView(weights.data(), DType::kF32, {20, 15})));
  EXPECT_OK(reader->ReadTensor("moments", TensorView(moments.data(), DType::kBF16, {77})));
  EXPECT_OK(reader->ReadTensor("empty", TensorView(nullptr, DType::kF32, {0, 4})));
  EXPECT_OK(reader->ReadLocalTensor("feedback", TensorView(&feedback, DType::kF32, {1})));
  EXPECT_EQ(weights, state_.weights);
  EXPECT_EQ(std::memcmp(moments.data(), state_.moments.data(), 154), 0);
  EXPECT_EQ(feedback, 0.25f);
  EXPECT_EQ(*reader->Text("rng"), "seed 5 \"quoted\" \n");
  EXPECT_EQ(*reader->LocalText("loader"), "epoch 3");
}

TEST_F(CheckpointReaderTest, SaysWhatDoesNotFit) {
  const v1::CheckpointManifest manifest = Write(42);
  ASSERT_OK_AND_ASSIGN(const auto reader, CheckpointReader::Open(root_.path(), manifest, 0));
  std::vector<float> weights(300);
  EXPECT_THAT(reader->ReadTensor("weights", TensorView(weights.data(), DType::kF32, {15, 20})),
              StatusIs(absl::StatusCode::kFailedPrecondition, AllOf(HasSubstr("(20, 15)"), HasSubstr("f32 (15, 20)"))));
  EXPECT_THAT(reader->ReadTensor("weights", TensorView(weights.data(), DType::kI32, {20, 15})),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("F32")));
  EXPECT_THAT(reader->ReadTensor("bias", TensorView(weights.data(), DType::kF32, {1})),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("bias")));
  EXPECT_THAT(reader->ReadTensor("feedback", TensorView(weights.data(), DType::kF32, {1})),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("feedback")));
  // A reader that is no rank has no local part.
  ASSERT_OK_AND_ASSIGN(const auto tool, CheckpointReader::Open(root_.path(), manifest, -1));
  EXPECT_FALSE(tool->HasLocal("feedback"));
  EXPECT_THAT(tool->LocalText("loader"), StatusIs(absl::StatusCode::kNotFound, HasSubstr("loader")));
}

TEST_F(CheckpointReaderTest, RefusesAShardCutAnywhere) {
  const v1::CheckpointManifest manifest = Write(42);
  const std::string shard = ShardOf(manifest);
  ASSERT_OK_AND_ASSIGN(const std::string whole, ReadFile(shard));
  uint64_t header = 0;
  std::memcpy(&header, whole.data(), 8);
  // Nothing, inside the length, inside the header, its end, inside the tensors, one byte short; and one byte too long.
  for (size_t length : {size_t{0}, size_t{5}, size_t{8}, size_t{60}, size_t{8 + header}, size_t{8 + header + 1},
                        whole.size() - 600, whole.size() - 1, whole.size() + 1}) {
    std::filesystem::resize_file(shard, length);
    EXPECT_THAT(CheckpointReader::Open(root_.path(), manifest, 0),
                StatusIs(absl::StatusCode::kDataLoss,
                         AllOf(HasSubstr(shard), HasSubstr(absl::StrCat("has ", length, " bytes")))));
    ASSERT_OK(WriteFileAtomic(shard, whole));
  }
  EXPECT_OK(CheckpointReader::Open(root_.path(), manifest, 0));
  std::filesystem::remove(shard);
  EXPECT_THAT(CheckpointReader::Open(root_.path(), manifest, 0),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr(shard)));
}

TEST_F(CheckpointReaderTest, RefusesAnAlteredByteAnywhere) {
  const v1::CheckpointManifest manifest = Write(42);
  const std::string shard = ShardOf(manifest);
  ASSERT_OK_AND_ASSIGN(const std::string whole, ReadFile(shard));
  for (size_t at = 0; at < whole.size(); at += 97) {
    std::string altered = whole;
    altered[at] = static_cast<char>(altered[at] ^ 0x10);
    ASSERT_OK(WriteFileAtomic(shard, altered));
    EXPECT_THAT(CheckpointReader::Open(root_.path(), manifest, 0),
                StatusIs(absl::StatusCode::kDataLoss, AllOf(HasSubstr(shard), HasSubstr("altered"))))
        << at;
  }
}

TEST_F(CheckpointReaderTest, RefusesManifestsThatLeadElsewhereOrContradictThemselves) {
  const v1::CheckpointManifest good = Write(42);
  const auto refused = [&](const std::function<void(v1::CheckpointManifest*)>& spoil, const char* why) {
    v1::CheckpointManifest bad = good;
    spoil(&bad);
    EXPECT_THAT(CheckpointReader::Open(root_.path(), bad, 0),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(why)));
  };
  refused([](auto* m) { m->set_directory("../elsewhere"); }, "leads out");
  refused([](auto* m) { m->set_directory("/etc"); }, "not relative");
  refused([](auto* m) { m->mutable_shards(0)->set_file("../rank-0.safetensors"); }, "shard 0");
  refused([](auto* m) { m->set_world_size(2); }, "1 shards for 2 ranks");
  refused([](auto* m) { m->set_format_version(2); }, "format_version 2");
}

TEST_F(CheckpointReaderTest, TheManifestFileIsTheRecord) {
  const v1::CheckpointManifest manifest = Write(42);
  const std::string folder = root_.Join(manifest.directory());
  ASSERT_OK_AND_ASSIGN(const v1::CheckpointManifest read, ReadManifest(folder));
  EXPECT_EQ(read.SerializeAsString(), manifest.SerializeAsString());
  EXPECT_EQ(read.spec_digest(), "spec");
  ASSERT_OK_AND_ASSIGN(const std::string json, ReadFile(JoinPath(folder, "manifest.json")));
  ASSERT_OK(WriteFileAtomic(JoinPath(folder, "manifest.json"), json.substr(0, json.size() / 2)));
  EXPECT_THAT(ReadManifest(folder), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("manifest.json")));
}

TEST_F(CheckpointReaderTest, FallsBackToTheCheckpointBefore) {
  const v1::CheckpointManifest older = Write(10);
  state_.weights[7] = 99;
  const v1::CheckpointManifest newer = Write(20);
  std::vector<int64_t> damaged;
  ASSERT_OK_AND_ASSIGN(auto reader, CheckpointReader::OpenNewest(root_.path(), {newer, older}, 0, &damaged));
  EXPECT_EQ(reader->step(), 20);
  EXPECT_TRUE(damaged.empty());
  std::filesystem::resize_file(ShardOf(newer), 100);
  ASSERT_OK_AND_ASSIGN(reader, CheckpointReader::OpenNewest(root_.path(), {newer, older}, 0, &damaged));
  EXPECT_EQ(reader->step(), 10);
  EXPECT_EQ(damaged, std::vector<int64_t>({20}));
  std::filesystem::resize_file(ShardOf(older), 100);
  EXPECT_THAT(CheckpointReader::OpenNewest(root_.path(), {newer, older}, 0),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("step-00000020")));
  EXPECT_THAT(CheckpointReader::OpenNewest(root_.path(), {}, 0),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("no committed checkpoint")));
}

TEST(CheckpointWriterTest, RefusesBadNames) {
  float x = 0;
  CheckpointWriter writer;
  writer.AddTensor("a", TensorView(&x, DType::kF32, {1}));
  EXPECT_OK(writer.status());
  writer.AddTensor("local/a", TensorView(&x, DType::kF32, {1}));
  EXPECT_THAT(writer.status(), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("local/a")));
}

// ---- tensors in parts ----

constexpr int64_t kWhole = 1000;

std::vector<float> Counting() {
  std::vector<float> values(kWhole);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i) * 0.5f;
  return values;
}

// Parts [cuts[r], cuts[r + 1]) by as many ranks as there are; empty ones are not written.
class PartsTest : public ::testing::Test {
 protected:
  absl::StatusOr<std::unique_ptr<CheckpointReader>> Write(const std::vector<int64_t>& cuts, bool whole_too = false) {
    const int ranks = static_cast<int>(cuts.size()) - 1;
    auto communicators = comm::MakeLocalCommunicators(ranks);
    std::vector<float> values = Counting();
    v1::CheckpointManifest manifest;
    std::vector<std::thread> threads;
    for (int rank = 0; rank < ranks; ++rank) {
      threads.emplace_back([&, rank] {
        CheckpointerOptions options;
        options.job_root = root_.path();
        options.attempt = 1;
        options.fence = 7;
        auto checkpointer = Checkpointer::Create(options, communicators[static_cast<size_t>(rank)].get(),
                                                 [&](const v1::CheckpointManifest& committed) {
                                                   manifest = committed;
                                                   return absl::OkStatus();
                                                 });
        EXPECT_OK(checkpointer->Snapshot(1, [&](CheckpointWriter& writer) {
          const int64_t begin = cuts[static_cast<size_t>(rank)], end = cuts[static_cast<size_t>(rank) + 1];
          if (end > begin) {
            const TensorView part(values.data() + begin, DType::kF32, {end - begin});
            writer.AddTensorPart("adamw.m/w", part, begin, kWhole);
          }
          if (whole_too) writer.AddTensor("adamw.m/w", TensorView(values.data(), DType::kF32, {kWhole}));
          return absl::OkStatus();
        }));
        EXPECT_OK(checkpointer->Wait().status);
      });
    }
    for (std::thread& thread : threads) thread.join();
    return CheckpointReader::Open(root_.path(), manifest, 0);
  }

  TempDir root_;
};

TEST_F(PartsTest, AnyNumberOfRanksReadsThem) {
  const std::vector<float> expected = Counting();
  for (const std::vector<int64_t>& cuts :
       std::vector<std::vector<int64_t>>{{0, kWhole}, {0, 384, kWhole}, {0, 128, 128, 999, kWhole}}) {
    ASSERT_OK_AND_ASSIGN(const auto reader, Write(cuts));
    EXPECT_TRUE(reader->Has("adamw.m/w"));
    EXPECT_EQ(reader->TensorNames(), std::vector<std::string>({"adamw.m/w"}));
    EXPECT_THAT(reader->Tensor("adamw.m/w"), StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("in parts")));
    std::vector<float> whole(kWhole);
    ASSERT_OK(reader->ReadTensor("adamw.m/w", TensorView(whole.data(), DType::kF32, {40, 25})));
    EXPECT_EQ(whole, expected);
    for (const auto& [begin, end] :
         std::vector<std::pair<int64_t, int64_t>>{{0, 1}, {100, 900}, {384, 1000}, {999, 1000}}) {
      std::vector<float> part(static_cast<size_t>(end - begin));
      ASSERT_OK(
          reader->ReadTensorPart("adamw.m/w", begin, kWhole, TensorView(part.data(), DType::kF32, {end - begin})));
      EXPECT_EQ(part, std::vector<float>(expected.begin() + begin, expected.begin() + end));
    }
  }
}

TEST_F(PartsTest, WhatDoesNotFitIsRefused) {
  ASSERT_OK_AND_ASSIGN(const auto reader, Write({0, 384, kWhole}));
  std::vector<float> values(kWhole);
  const TensorView all(values.data(), DType::kF32, {kWhole});
  const auto is_misfit = StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("with 1000 elements"));
  EXPECT_THAT(reader->ReadTensorPart("adamw.m/w", 0, 999, all.Slice(0, 999)), is_misfit);
  EXPECT_THAT(reader->ReadTensorPart("adamw.m/w", 1, kWhole, all), is_misfit);
  EXPECT_THAT(reader->ReadTensorPart("adamw.m/w", 0, kWhole, TensorView(values.data(), DType::kBF16, {kWhole})),
              is_misfit);
  EXPECT_THAT(reader->ReadTensor("adamw.m/w", all.Slice(0, 10)), is_misfit);
  EXPECT_THAT(reader->ReadTensorPart("adamw.v/w", 0, kWhole, all),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("adamw.v/w")));
}

TEST_F(PartsTest, GapsOverlapsAndPartsBesideTheWholeAreDamage) {
  const auto is_damage = [](const char* what) { return StatusIs(absl::StatusCode::kDataLoss, HasSubstr(what)); };
  EXPECT_THAT(Write({0, 384}), is_damage("end at element 384"));
  EXPECT_THAT(Write({128, kWhole}), is_damage("elements from 0"));
  EXPECT_THAT(Write({0, kWhole}, /*whole_too=*/true), is_damage("whole and in parts"));
}

TEST(CheckpointWriterTest, PartsLieWithinTheirTensor) {
  float values[4] = {};
  const TensorView part(values, DType::kF32, {4});
  for (const auto& [begin, whole] : {std::pair{-1, 10}, {7, 10}, {0, 3}}) {
    CheckpointWriter writer;
    writer.AddTensorPart("w", part, begin, whole);
    EXPECT_THAT(writer.status(), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("no part of \"w\"")));
  }
  CheckpointWriter writer;
  writer.AddTensor("part/0/4/w", part);
  EXPECT_FALSE(writer.status().ok());
}

// A tensor that was written whole can be read in parts.
TEST_F(CheckpointReaderTest, GivesPartsOfWholeTensors) {
  ASSERT_OK_AND_ASSIGN(const auto reader, CheckpointReader::Open(root_.path(), Write(1), 0));
  std::vector<float> part(17);
  ASSERT_OK(reader->ReadTensorPart("weights", 280, 300, TensorView(part.data(), DType::kF32, {17})));
  EXPECT_EQ(part, std::vector<float>(state_.weights.begin() + 280, state_.weights.begin() + 297));
}

}  // namespace
}  // namespace trainyard::ckpt
