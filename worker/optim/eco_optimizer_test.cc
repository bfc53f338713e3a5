#include "worker/optim/eco_optimizer.h"

#include <cmath>
#include <memory>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/optim/eco.h"
#include "kernels/testing/all_near.h"
#include "kernels/testing/host_tensor.h"
#include "worker/optim/adamw_optimizer.h"

namespace trainyard::optim {
namespace {

using kernels::Arena;
using kernels::DType;
using kernels::TensorView;
using kernels::testing::AllNear;
using kernels::testing::HostTensor;
using Form = spec::EcoOptions::Form;

constexpr int64_t kRows = 6, kCols = 256, kCount = kRows * kCols;

// A coded matrix "layers.0.qkv.weight", an embedding and a norm that are not coded.
struct SmallRun {
  SmallRun(const spec::EcoOptions& options, DType storage, uint64_t seed) : storage(storage), seed(seed) {
    kernels::Stream stream(1);
    EncodeMatrix({.x = HostTensor::Normal(DType::kF32, {kCount}, 1, 0.1), .matrix = coded()}, stream);
    Arena counting = Arena::CountOnly();
    MakeEcoOptimizer(options, Parameters(), counting);
    arena = std::make_unique<Arena>(*Arena::Reserve(counting.used_bytes()));
    optimizer = MakeEcoOptimizer(options, Parameters(), *arena);
  }
  kernels::CodedMatrix coded() const { return {codes, scales}; }
  std::vector<OptimizerParameter> Parameters() const {
    OptimizerParameter matrix, embedding, norm;
    matrix.name = "layers.0.qkv.weight";
    matrix.index = 2;
    matrix.weight = TensorView(nullptr, storage, {kRows, kCols});
    matrix.coded = coded();
    matrix.gradient = matrix_gradient;
    matrix.decays = true;
    embedding.name = "embedding.weight";
    embedding.index = 0;
    embedding.weight = storage == DType::kF32 ? embedding_master : embedding_weight;
    if (storage != DType::kF32) embedding.master = embedding_master;
    embedding.gradient = gradient;
    embedding.decays = true;
    norm.name = "norm.weight";
    norm.index = 1;
    norm.weight = norm_weight;
    norm.gradient = gradient;
    return {embedding, norm, matrix};
  }
  void Update(int updates) {
    kernels::Stream stream(2);
    for (int64_t update = 1; update <= updates; ++update) {
      optimizer->Update({.update = update, .learning_rate = 0.01, .gradient_factor = factor, .seed = seed}, stream);
    }
  }
  std::vector<uint8_t> Codes() const { return codes.Bytes(); }

  DType storage;
  uint64_t seed;
  HostTensor codes = HostTensor(DType::kF8E4M3, {kRows, kCols}), scales = HostTensor(DType::kF32, {kRows, 1});
  HostTensor embedding_master = HostTensor::Normal(DType::kF32, {300}, 5);
  HostTensor embedding_weight = HostTensor(DType::kBF16, {300});
  HostTensor norm_weight = HostTensor::Filled(DType::kF32, {300}, 1);
  HostTensor gradient = HostTensor::Normal(DType::kF32, {300}, 6);
  HostTensor matrix_gradient = HostTensor::Normal(DType::kF32, {kCount}, 7);
  HostTensor factor = HostTensor::Of(DType::kF32, {1}, {0.5});
  std::unique_ptr<Arena> arena;
  std::unique_ptr<Optimizer> optimizer;
};

TEST(EcoOptimizerTest, CodedMatricesTakeEcoAndTheRestPlainAdamW) {
  for (const DType storage : {DType::kF32, DType::kBF16}) {
    SmallRun run(spec::EcoOptions(), storage, 9);
    const HostTensor codes = run.codes.Copy(), scales = run.scales.Copy();
    HostTensor embedding = run.embedding_master.Copy();
    run.Update(1);

    kernels::Stream stream(1);
    const HostTensor m(DType::kF32, {kCount}), v(DType::kF32, {kCount});
    Eco({.form = kernels::EcoForm::kAdamW,
         .weights = {codes, scales},
         .weight_value = storage,
         .grad = run.matrix_gradient,
         .m = m,
         .v = v,
         .lr = 0.01f,
         .beta1 = 0.9f,
         .beta2 = 0.98f,
         .eps = 1e-9f,
         .weight_decay = 0.1f,
         .gradient_factor = run.factor,
         .random = {.seed = 9, .step = 1, .tensor = 2}},
        stream);
    EXPECT_EQ(run.Codes(), codes.Bytes());
    EXPECT_EQ(run.scales.Bytes(), scales.Bytes());

    spec::AdamWOptions adamw;
    adamw.beta2 = 0.98;
    adamw.epsilon = 1e-9;
    adamw.weight_decay = 0.1;
    OptimizerParameter parameter;
    parameter.name = "embedding.weight";
    parameter.weight = embedding;
    parameter.gradient = run.gradient;
    parameter.decays = true;
    Arena arena = *Arena::Reserve(1 << 16);
    MakeAdamWOptimizer(adamw, {parameter}, arena)
        ->Update({.update = 1, .learning_rate = 0.01, .gradient_factor = run.factor}, stream);
    EXPECT_EQ(run.embedding_master.Bytes(), embedding.Bytes());
    if (storage == DType::kBF16) {
      EXPECT_EQ(run.embedding_weight.Bytes(), HostTensor::Of(DType::kBF16, {300}, embedding.ToDoubles()).Bytes());
    }
  }
}

// Without codes SGDM rounds nothing: m = b m + (1 - b) g and w = w - lr (m + decay w), norms without decay.
TEST(EcoOptimizerTest, TheRestTakesPlainSgdmInTheSgdmForms) {
  for (const Form form : {Form::kSgdm, Form::kSgdmExact}) {
    spec::EcoOptions options;
    options.form = form;
    options.weight_decay = 0.1;
    SmallRun run(options, DType::kBF16, 9);
    std::vector<double> embedding = run.embedding_master.ToDoubles(), norm = run.norm_weight.ToDoubles();
    const std::vector<double> gradient = run.gradient.ToDoubles();
    run.Update(2);
    for (size_t i = 0; i < 300; ++i) {
      double m = 0;
      for (int step = 0; step < 2; ++step) {
        m = 0.9 * m + 0.1 * 0.5 * gradient[i];
        embedding[i] -= 0.01 * (m + 0.1 * embedding[i]);
        norm[i] -= 0.01 * m;
      }
    }
    EXPECT_THAT(run.embedding_master.ToDoubles(), AllNear(embedding, {.absolute = 1e-6}));
    EXPECT_THAT(run.norm_weight.ToDoubles(), AllNear(norm, {.absolute = 1e-6}));
    EXPECT_EQ(run.embedding_weight.Bytes(),
              HostTensor::Of(DType::kBF16, {300}, run.embedding_master.ToDoubles()).Bytes());
    EXPECT_EQ(run.optimizer->state().size(), form == Form::kSgdmExact ? 4u : 3u);  // momenta, and the kept error
  }
}

TEST(EcoOptimizerTest, NoiseIsTheSeedsSoRanksThatShareItStayEqual) {
  for (const Form form : {Form::kAdamW, Form::kSgdm, Form::kSgdmExact}) {
    spec::EcoOptions options;
    options.form = form;
    options.first_moment = spec::MomentType::kBf16;
    SmallRun rank0(options, DType::kF32, 3), rank1(options, DType::kF32, 3), other(options, DType::kF32, 4);
    for (SmallRun* run : {&rank0, &rank1, &other}) run->Update(4);
    EXPECT_EQ(rank0.Codes(), rank1.Codes());
    EXPECT_NE(rank0.Codes(), other.Codes());
  }
}

TEST(EcoOptimizerTest, TellsWhatRoundingDoes) {
  spec::EcoOptions options;
  for (const bool injects : {true, false}) {
    options.error_injection = injects;
    SmallRun run(options, DType::kF32, 3);
    run.Update(3);
    std::map<std::string, double> metrics;
    run.optimizer->AddMetrics(&metrics);
    EXPECT_EQ(metrics.size(), 3u);
    EXPECT_GT(metrics.at("eco_changed_share"), 0.3);  // steps of 0.01 on a grid of about that
    EXPECT_LE(metrics.at("eco_changed_share"), 1);
    EXPECT_EQ(metrics.at("eco_clipped_share"), 0);
    EXPECT_EQ(metrics.at("eco_injection_ratio") > 0, injects);
    EXPECT_LT(metrics.at("eco_injection_ratio"), 10);
  }
}

TEST(EcoOptimizerTest, MomentsHaveTheBytesOfTheirTypes) {
  const auto up = [](int64_t bytes) { return (bytes + 63) / 64 * 64; };
  spec::EcoOptions options;
  const auto moments = [&] { return SmallRun(options, DType::kF32, 1).arena->plan().at("moments"); };
  EXPECT_EQ(moments(), 2 * (up(4 * kCount) + 2 * up(4 * 300)));
  options.second_moment = spec::MomentType::kBf16;
  EXPECT_EQ(moments(), up(4 * kCount) + 2 * up(4 * 300) + up(2 * kCount) + 2 * up(2 * 300));
  options.first_moment = spec::MomentType::kBf16;
  EXPECT_EQ(moments(), 2 * (up(2 * kCount) + 2 * up(2 * 300)));
  options.form = Form::kSgdm;
  EXPECT_EQ(moments(), up(2 * kCount) + 2 * up(2 * 300));
  options.form = Form::kSgdmExact;
  EXPECT_EQ(moments(), up(2 * kCount) + 2 * up(2 * 300) + up(4 * kCount));
}

}  // namespace
}  // namespace trainyard::optim
