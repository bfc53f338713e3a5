// The whole job on the CUDA device of the build beside the CPU, each method of selection: the same samples, at the same
// scores up to the order of sums. On the emulated device the guard (kernels/core/simt/guard.h) also watches that the
// host touches no memory that the device may be using, and that kernels get no memory of the host.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/testing/status_matchers.h"
#include "base/testing/temp_dir.h"
#include "gtest/gtest.h"
#include "kernels/core/device.h"
#include "worker/data/sample_set.h"
#include "worker/data/sample_set_builder.h"
#include "worker/jobs/select_data_job.h"
#include "worker/jobs/testing/job_rank.h"
#include "worker/jobs/testing/tiny_job.h"

namespace trainyard::jobs {
namespace {

using spec::SelectionMethod;

constexpr int kPool = 16, kTargets = 3;

struct DeviceCase {
  std::string name;
  SelectionMethod method = SelectionMethod::kInfluence;
  spec::SelectionProjection projection = spec::SelectionProjection::kHadamard;
  int64_t mask_elements = 0;
  bool second_order = false;
  double tolerance = 1e-3;  // of scores, most of which are cosines
};

class SelectDataDeviceTest : public ::testing::TestWithParam<DeviceCase> {
 protected:
  static void SetUpTestSuite() {
    if (kernels::CheckCudaDevice().ok()) setenv("TRAINYARD_SIMT_GUARD", "1", /*overwrite=*/1);
  }
  void SetUp() override {
    if (const absl::Status status = kernels::CheckCudaDevice(); !status.ok()) GTEST_SKIP() << status;
    WriteSet("pool", kPool, 0);
    WriteSet("target", kTargets, 100);
  }
  void WriteSet(const std::string& name, int count, int seed) {
    const char* const words[] = {"abba ", "cad ", "bead ", "qux ", "zyx ", "wuzy "};
    std::string text;
    for (int i = 0; i < count; ++i) {
      std::string line;
      for (int word = 0; word < 3 + i % 3; ++word) line += words[((seed + i) * 7 + word * word * (i + 3)) % 6];
      text += "{\"id\": \"" + name + std::to_string(10 + i) + "\", \"text\": \"" + line + std::to_string(seed + i) +
              "\"}\n";
    }
    TY_CHECK_OK(WriteFileAtomic(dir_.Join(name + ".jsonl"), text));
    TY_CHECK_OK(data::BuildSampleSet({.inputs = {dir_.Join(name + ".jsonl")}, .output = dir_.Join(name)}));
  }
  spec::JobOptions Options(spec::SlotType slot_type) const {
    spec::JobOptions options = TinyLanguageModelJob("");
    options.training = {};
    options.world.slot_type = slot_type;
    spec::SelectDataOptions select;
    select.method = GetParam().method;
    select.pool = dir_.Join("pool");
    select.target = dir_.Join("target");
    select.count = GetParam().method == SelectionMethod::kFull ? kPool : 6;
    select.sequence_length = 24;
    select.warmup = {.fraction = 0.25, .epochs = 2, .learning_rate = 5e-3, .batch = 2};
    select.landmarks.count = 6;
    select.embedding.blocks = 1;
    // Of 2 * 32 numbers: all as they are, or some of their transform.
    select.embedding.projection_dim = GetParam().mask_elements > 0 ? 48 : 64;
    select.gradients.projection_dim = 256;
    select.gradients.projection = GetParam().projection;
    select.gradients.mask_elements = GetParam().mask_elements;
    if (GetParam().second_order) {
      select.rule = spec::SelectionRule::kWeights;
      select.weights.second_order = true;
      select.landmarks.count = 4;
    }
    options.kind = select;
    return options;
  }

  struct Chosen {
    double score = 0, weight = 0;
    int64_t round = 0;
  };
  std::map<std::string, Chosen> Run(const spec::JobOptions& options, const std::string& attempt) {
    JobRank rank(options, dir_.Join(attempt));
    TY_CHECK_OK(rank.job->Prepare(rank.context));
    TY_CHECK_OK(rank.job->Initialize());
    EXPECT_TRUE(rank.Units(spec::kSelectionStages).back().done);
    const absl::StatusOr<v1::JobResult> result = rank.job->Finish();
    TY_CHECK_OK(result);
    const absl::StatusOr<data::SampleSet> set = data::SampleSet::Open(result->artifacts(0).path());
    TY_CHECK_OK(set);
    std::map<std::string, Chosen> chosen;
    for (int64_t i = 0; i < set->size(); ++i) {
      const data::SampleRecord& record = set->record(i);
      if (record.split == data::Split::kValidation) continue;
      chosen[record.id] = {record.score, record.weight, record.round};
    }
    return chosen;
  }

  const TempDir dir_;
};

TEST_P(SelectDataDeviceTest, SelectsWhatTheCpuSelects) {
  const std::map<std::string, Chosen> expected = Run(Options(spec::SlotType::kCpu), "cpu");
  const std::map<std::string, Chosen> chosen = Run(Options(spec::SlotType::kGpu), "device");
  ASSERT_FALSE(expected.empty());
  double largest = 1;  // un-normalised influences are larger than cosines
  for (const auto& [id, sample] : expected) largest = std::max(largest, std::abs(sample.score));
  EXPECT_EQ(chosen.size(), expected.size());
  for (const auto& [id, sample] : expected) {
    const auto found = chosen.find(id);
    ASSERT_NE(found, chosen.end()) << id;
    EXPECT_EQ(found->second.round, sample.round) << id;
    EXPECT_NEAR(found->second.score, sample.score, GetParam().tolerance * largest) << id;
    EXPECT_NEAR(found->second.weight, sample.weight, 10 * GetParam().tolerance) << id;
  }
}

class SelectDataRepeatTest : public SelectDataDeviceTest {};

TEST_P(SelectDataRepeatTest, TwoRunsAreEqual) {
  const std::map<std::string, Chosen> first = Run(Options(spec::SlotType::kGpu), "first"),
                                      second = Run(Options(spec::SlotType::kGpu), "second");
  ASSERT_EQ(first.size(), second.size());
  for (const auto& [id, sample] : first) {
    EXPECT_EQ(second.at(id).score, sample.score) << id;
    EXPECT_EQ(second.at(id).weight, sample.weight) << id;
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, SelectDataDeviceTest,
    ::testing::Values(DeviceCase{.name = "influence"}, DeviceCase{.name = "influence_masked", .mask_elements = 500},
                      DeviceCase{.name = "influence_second_order", .second_order = true, .tolerance = 1e-2},
                      DeviceCase{.name = "exact", .method = SelectionMethod::kExact},
                      DeviceCase{.name = "less_rademacher",
                                 .method = SelectionMethod::kLess,
                                 .projection = spec::SelectionProjection::kRademacher},
                      DeviceCase{.name = "rds_plus", .method = SelectionMethod::kRdsPlus},
                      DeviceCase{.name = "random", .method = SelectionMethod::kRandom},
                      DeviceCase{.name = "full", .method = SelectionMethod::kFull}),
    [](const auto& info) { return info.param.name; });
INSTANTIATE_TEST_SUITE_P(All, SelectDataRepeatTest,
                         ::testing::Values(DeviceCase{.name = "influence_masked", .mask_elements = 500}),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace trainyard::jobs
