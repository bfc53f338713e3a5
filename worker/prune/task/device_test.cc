// Calibration and candidates on the CUDA device of the build beside the CPU, under the guard of the emulated device
// (worker/train/device_training_test.cc).
#include "kernels/core/device.h"

#include <cmath>
#include <cstdlib>

#include "base/testing/status_matchers.h"
#include "base/testing/temp_dir.h"
#include "gtest/gtest.h"
#include "worker/prune/task/candidate.h"
#include "worker/prune/task/hessians.h"
#include "worker/prune/task/testing/pruned_model.h"

namespace trainyard::prune {
namespace {

using kernels::Device;
using kernels::DType;
using testing::FirstDocuments;
using testing::kSequence;
using testing::Pruned;

class PruneDeviceTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (kernels::CheckCudaDevice().ok()) setenv("TRAINYARD_SIMT_GUARD", "1", /*overwrite=*/1);
  }
  void SetUp() override {
    if (const absl::Status status = kernels::CheckCudaDevice(); !status.ok()) GTEST_SKIP() << status;
  }
  static Pruned& Model() {
    static auto* const pruned = new Pruned(2);
    return *pruned;
  }
};

TEST_F(PruneDeviceTest, MomentsAreThoseOfTheCpu) {
  const std::vector<Document> documents = FirstDocuments(Model().model, Half::kFirst, 100);
  std::vector<std::vector<float>> moments;
  for (const Device device : {Device::kCpu, Device::kCuda}) {
    kernels::Stream stream(device, 1);
    ASSERT_OK_AND_ASSIGN(const LoadedModel dense, LoadDenseModel(Model().model.path(), DType::kF32, stream));
    TempDir dir;
    CalibrationArgs args;
    args.config = &dense.config;
    args.weights = &dense.weights;
    args.documents = &documents;
    args.sequence_length = kSequence;
    args.directory = dir.path();
    args.agree_to_stop = [] { return absl::StatusOr<bool>(false); };
    ASSERT_OK(Calibrate(args, stream).status());
    std::vector<float>& all = moments.emplace_back();
    for (int64_t block = 0; block < dense.config.layers; ++block) {
      for (const auto module : {spec::PruneModule::kAttention, spec::PruneModule::kMlp}) {
        const int64_t columns = module == spec::PruneModule::kAttention ? 64 : 128;
        ASSERT_OK_AND_ASSIGN(const std::vector<float> hessian,
                             ReadHessian(HessianPath(dir.path(), block, module), columns));
        all.insert(all.end(), hessian.begin(), hessian.end());
      }
    }
  }
  float largest = 0;
  for (const float value : moments[0]) largest = std::max(largest, std::abs(value));
  for (size_t i = 0; i < moments[0].size(); ++i) ASSERT_NEAR(moments[1][i], moments[0][i], 1e-5f * largest) << i;
}

struct CandidateCase {
  std::string name;
  spec::PruneEnforcement enforcement = spec::PruneEnforcement::kShrink;
  DType dtype = DType::kF32;
  int64_t top_k = 0;
  double tolerance = 1e-4;
};

class CandidateDeviceTest : public PruneDeviceTest, public ::testing::WithParamInterface<CandidateCase> {};

// Ragged groups, a block without attention, one without an MLP: stitched, tuned and measured.
TEST_P(CandidateDeviceTest, IsAsFarAsOnTheCpu) {
  const CandidateCase& param = GetParam();
  const Pruned& pruned = Model();
  const Genome genome{{1, 4, 2}, {3, 1, 4}};
  const std::vector<Document> train = FirstDocuments(pruned.model, Half::kFirst, 100),
                              evaluation = FirstDocuments(pruned.model, Half::kSecond, 70);
  ASSERT_OK_AND_ASSIGN(const std::vector<BlockRemoval> removals, pruned.database.Removals(genome));
  std::vector<Distance> before, after;
  for (const Device device : {Device::kCpu, Device::kCuda}) {
    kernels::Stream stream(device, 1);
    ASSERT_OK_AND_ASSIGN(const LoadedModel dense, LoadDenseModel(pruned.model.path(), param.dtype, stream));
    absl::StatusOr<LoadedModel> model = param.enforcement == spec::PruneEnforcement::kShrink
                                            ? StitchShrunk(dense, pruned.database, genome, true, stream)
                                            : StitchDense(dense, pruned.database, genome, stream);
    ASSERT_OK(model.status());
    DistanceMeter meter(&dense, kSequence, param.top_k, &stream);
    ASSERT_OK_AND_ASSIGN(before.emplace_back(), meter.Measure(*model, evaluation, testing::Never));
    FineTuneArgs args;
    args.options.learning_rate = 1e-3;
    args.options.enforcement = param.enforcement;
    args.sequence_length = kSequence;
    args.removals = &removals;
    args.should_stop = testing::Never;
    ASSERT_OK(FineTune(args, train, *model, stream).status());
    ASSERT_OK_AND_ASSIGN(after.emplace_back(), meter.Measure(*model, evaluation, testing::Never));
  }
  for (const auto* distances : {&before, &after}) {
    EXPECT_EQ((*distances)[1].positions, (*distances)[0].positions);
    EXPECT_NEAR((*distances)[1].kl, (*distances)[0].kl, param.tolerance);
    EXPECT_NEAR((*distances)[1].loss, (*distances)[0].loss, param.tolerance);
    EXPECT_NEAR((*distances)[1].dense_loss, (*distances)[0].dense_loss, param.tolerance);
  }
  EXPECT_GT(std::abs(after[1].kl - before[1].kl), 10 * param.tolerance);
}

INSTANTIATE_TEST_SUITE_P(
    All, CandidateDeviceTest,
    ::testing::Values(CandidateCase{.name = "shrink"},
                      CandidateCase{.name = "mask_top_k", .enforcement = spec::PruneEnforcement::kMask, .top_k = 20},
                      CandidateCase{.name = "bf16", .dtype = DType::kBF16, .tolerance = 5e-3}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace trainyard::prune
