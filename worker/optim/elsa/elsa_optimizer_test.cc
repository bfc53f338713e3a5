#include "worker/optim/elsa/elsa_optimizer.h"

#include <algorithm>
#include <numeric>

#include "base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/optim/adamw.h"
#include "kernels/prune/radix_select.h"
#include "kernels/testing/all_near.h"
#include "worker/optim/elsa/elsa_penalty.h"
#include "worker/optim/elsa/testing/problem.h"

namespace trainyard::optim {
namespace {

using kernels::testing::AllNear;
using spec::ElsaOptions;
using testing::DType;
using ::testing::HasSubstr;
using testing::HostTensor;
using testing::Problem;

constexpr size_t kQkv = 1, kDown = 3;  // parameters of Problem

ElsaOptions Options() {
  ElsaOptions options;
  options.sparsity = 0.6;
  options.interval = 8;
  options.lambda = 0.3;
  return options;
}

// methods/elsa.md 2.2 in double, one tensor, z and u apart.
struct Reference {
  ElsaOptions options;
  std::vector<double> x, h, a;
  std::vector<double> z = {}, u = {}, m = {}, v = {};

  std::vector<double> Projected(const std::vector<double>& w, bool by_magnitude) const {
    std::vector<double> score(w.size());
    for (size_t i = 0; i < w.size(); ++i) score[i] = w[i] * w[i] * (by_magnitude ? 1 : v[i]);
    std::vector<size_t> order(w.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](size_t i, size_t j) { return score[i] < score[j]; });
    std::vector<double> kept = w;
    const auto pruned = static_cast<size_t>(static_cast<double>(w.size()) * options.sparsity);
    for (size_t i = 0; i < pruned; ++i) kept[order[i]] = 0;
    return kept;
  }

  void Run(int64_t steps) {
    const bool by_magnitude = options.projection == ElsaOptions::Projection::kMagnitude;
    z = Projected(x, true);
    u = m = v = std::vector<double>(x.size(), 0);
    for (int64_t t = 0; t < steps; ++t) {
      const ElsaPenalty penalty = PenaltyAt(options, t, steps);
      for (size_t i = 0; i < x.size(); ++i) {
        const double g = h[i] * (x[i] - a[i]) + penalty.lambda * (x[i] - z[i] + u[i]);
        m[i] = options.beta1 * m[i] + (1 - options.beta1) * g;
        v[i] = options.beta2 * v[i] + (1 - options.beta2) * g * g;
        const double m_hat = m[i] / (1 - std::pow(options.beta1, static_cast<double>(t + 1)));
        const double v_hat = v[i] / (1 - std::pow(options.beta2, static_cast<double>(t + 1)));
        x[i] -= 0.02 * m_hat / (std::sqrt(v_hat) + options.epsilon);
      }
      if (t % options.interval != 0) continue;
      std::vector<double> w = x;
      for (size_t i = 0; i < w.size(); ++i) w[i] += penalty.dual_factor * u[i];
      z = Projected(w, by_magnitude);
      for (size_t i = 0; i < w.size(); ++i) u[i] = w[i] - z[i];
    }
  }
};

// The penalty before clipping, a projection in another step, a dual that is not rescaled, a threshold over all of qkv
// instead of each part: each moves x by far more than rounding.
TEST(ElsaOptimizerTest, FollowsTheDoubleReference) {
  for (const auto projection : {ElsaOptions::Projection::kFisher, ElsaOptions::Projection::kMagnitude}) {
    for (const auto schedule : {ElsaOptions::Schedule::kConstant, ElsaOptions::Schedule::kCosine}) {
      ElsaOptions options = Options();
      options.projection = projection;
      options.lambda_schedule = schedule;
      if (schedule == ElsaOptions::Schedule::kCosine) options.lambda_init = 0.05;
      Problem problem(options);
      std::vector<Reference> references;
      for (const OptimizerPart& part : problem.parameters()[kQkv].parts) {
        const auto rows = [&](const kernels::TensorView& tensor) {
          const float* const begin = tensor.Slice(part.row_begin, part.rows).as<float>();
          return std::vector<double>(begin, begin + part.rows * 13);
        };
        references.push_back(
            {options, rows(problem.Leading(kQkv)), rows(problem.curvature(kQkv)), rows(problem.target(kQkv))});
      }
      problem.Run(1, 100);
      for (size_t i = 0; i < references.size(); ++i) {
        references[i].Run(100);
        const OptimizerPart& part = problem.parameters()[kQkv].parts[i];
        const float* const x = problem.Leading(kQkv).Slice(part.row_begin, part.rows).as<float>();
        EXPECT_THAT(std::vector<double>(x, x + part.rows * 13), AllNear(references[i].x, {.absolute = 2e-4}));
      }
    }
  }
}

// 5.4, in f32 and to the bit: the two layouts are one method.
TEST(ElsaOptimizerTest, MergedAndSeparateAreEqual) {
  for (const auto schedule : {ElsaOptions::Schedule::kConstant, ElsaOptions::Schedule::kLinear}) {
    ElsaOptions options = Options();
    options.lambda_schedule = schedule;
    Problem merged(options);
    options.state_layout = ElsaOptions::StateLayout::kSeparate;
    Problem separate(options);
    merged.Run(1, 100);
    separate.Run(1, 100);
    EXPECT_EQ(merged.Bytes(), separate.Bytes());
    const float* const z = separate.State("elsa.z/layers.0.down.weight").as<float>();
    const float* const u = separate.State("elsa.u/layers.0.down.weight").as<float>();
    const float* const s = merged.State("elsa.s/layers.0.down.weight").as<float>();
    int64_t held = 0;
    for (int64_t i = 0; i < 11 * 13; ++i) {
      EXPECT_TRUE(z[i] == 0 || u[i] == 0) << i;
      EXPECT_EQ(s[i], z[i] - u[i]);
      held += u[i] != 0;
    }
    EXPECT_EQ(held, kernels::PrunedCount(11 * 13, 600'000));
  }
}

TEST(ElsaOptimizerTest, OthersTrainAsByAdamW) {
  ElsaOptions options = Options();
  options.exclude = {"*.down.weight", "k"};
  options.weight_decay = 0.1;
  Problem problem(options);
  std::vector<HostTensor> x, grad, m, v;
  for (size_t i = 0; i < 4; ++i) {
    const int64_t size = problem.Leading(i).size();
    x.push_back(HostTensor(DType::kF32, {size}));
    std::copy_n(problem.Leading(i).as<float>(), size, x.back().as<float>());
    for (auto* list : {&grad, &m, &v}) list->push_back(HostTensor(DType::kF32, {size}));
  }
  problem.Run(1, 10);
  kernels::Stream stream(1);
  const HostTensor factor = HostTensor::Of(DType::kF32, {1}, {0.5});
  for (int64_t step = 1; step <= 10; ++step) {
    for (size_t i = 0; i < 4; ++i) {
      for (int64_t j = 0; j < x[i].view().size(); ++j) {
        grad[i].as<float>()[j] =
            2 * problem.curvature(i).as<float>()[j] * (x[i].as<float>()[j] - problem.target(i).as<float>()[j]);
      }
      AdamW({.param = x[i],
             .grad = grad[i],
             .m = m[i],
             .v = v[i],
             .lr = 0.02f,
             .weight_decay = i == 2 ? 0.0f : 0.1f,
             .step = step,
             .gradient_factor = factor},
            stream);
    }
  }
  for (const size_t i : {0, 2, 3}) {
    const float* const trained = problem.Leading(i).as<float>();
    EXPECT_EQ(std::vector<double>(trained, trained + x[i].view().size()), x[i].ToDoubles()) << i;
  }
  const auto same_rows = [&](int64_t row) {  // of q, k, v
    return std::memcmp(problem.Leading(kQkv).as<float>() + row * 13, x[kQkv].as<float>() + row * 13, 13 * 4) == 0;
  };
  EXPECT_FALSE(same_rows(0));
  EXPECT_TRUE(same_rows(3));
  EXPECT_FALSE(same_rows(5));
}

int64_t Zeros(const kernels::TensorView& tensor) {
  int64_t zeros = 0;
  for (int64_t i = 0; i < tensor.size(); ++i) {
    zeros += tensor.dtype() == DType::kF32 ? tensor.as<float>()[i] == 0
                                           : kernels::ToFloat(tensor.as<kernels::BFloat16>()[i]) == 0;
  }
  return zeros;
}

TEST(ElsaOptimizerTest, FinalizeLeavesExactlyTheSparsity) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    Problem problem(Options(), 13, dtype);
    problem.Run(1, 30);
    EXPECT_EQ(Zeros(problem.Leading(kDown)), 0);
    problem.optimizer().Finalize(problem.stream());
    EXPECT_EQ(Zeros(problem.Leading(kDown)), kernels::PrunedCount(11 * 13, 600'000));
    EXPECT_EQ(Zeros(problem.parameters()[kDown].weight), kernels::PrunedCount(11 * 13, 600'000));
    EXPECT_EQ(Zeros(problem.Leading(0)), 0);
    const std::vector<PruningMask> masks = problem.optimizer().pruning_masks();
    ASSERT_EQ(masks.size(), 4u);
    EXPECT_EQ(masks[1].name, "k");
    EXPECT_EQ(masks[1].rows, 2);
    EXPECT_EQ(masks[1].cols, 13);
    for (size_t part = 0; part < 3; ++part) {
      const OptimizerPart& rows = problem.parameters()[kQkv].parts[part];
      const kernels::TensorView x = problem.Leading(kQkv).Slice(rows.row_begin, rows.rows);
      EXPECT_EQ(Zeros(x), kernels::PrunedCount(x.size(), 600'000));
      for (int64_t i = 0; i < x.size(); ++i) {
        EXPECT_EQ((masks[part].bits.as<uint8_t>()[i / 8] >> (i % 8)) & 1, x.as<float>()[i] != 0);
      }
    }
    const std::vector<uint8_t> once = problem.Bytes();
    problem.optimizer().Finalize(problem.stream());
    EXPECT_EQ(problem.Bytes(), once);
  }
}

TEST(ElsaOptimizerTest, PatternHoldsInEveryGroup) {
  for (const auto& [pattern, group] : {std::pair{ElsaOptions::Pattern::k2To4, 4}, {ElsaOptions::Pattern::k4To8, 8}}) {
    ElsaOptions options = Options();
    options.pattern = pattern;
    options.sparsity = 0.5;
    Problem problem(options, 16);
    problem.Run(1, 20);
    problem.optimizer().Finalize(problem.stream());
    for (const size_t i : {kQkv, kDown}) {
      const kernels::TensorView x = problem.Leading(i);
      for (int64_t first = 0; first < x.size(); first += group) {
        int zeros = 0;
        for (int j = 0; j < group; ++j) zeros += x.as<float>()[first + j] == 0;
        ASSERT_EQ(zeros, group / 2);
      }
    }
  }
}

// One threshold over the model: exact in total, and not the same share everywhere.
TEST(ElsaOptimizerTest, ModelScopeIsExactInTotal) {
  ElsaOptions options = Options();
  options.scope = ElsaOptions::Scope::kModel;
  options.projection = ElsaOptions::Projection::kMagnitude;
  Problem problem(options);
  float* const x = problem.Leading(kDown).as<float>();
  for (int64_t i = 0; i < 11 * 13; ++i) x[i] *= 3;  // larger: keeps more
  problem.Run(1, 9);
  std::map<std::string, double> metrics;
  problem.optimizer().AddMetrics(&metrics);
  const int64_t total = 7 * 13 + 11 * 13, pruned = kernels::PrunedCount(total, 600'000);
  EXPECT_DOUBLE_EQ(metrics.at("elsa_sparsity"), 1 - static_cast<double>(total - pruned) / static_cast<double>(total));
  problem.optimizer().Finalize(problem.stream());
  const int64_t qkv = Zeros(problem.Leading(kQkv)), down = Zeros(problem.Leading(kDown));
  EXPECT_EQ(qkv + down, pruned);
  EXPECT_GT(qkv, 7 * 13 * 6 / 10 + 5);
}

// 5.8: what ranks do is mean their gradients, so the same mean gives the same masks for any number of them, unless
// lambda is divided by it.
TEST(ElsaOptimizerTest, RanksCountOnlyIfAskedTo) {
  ElsaOptions options = Options();
  Problem one(options), two(options);
  one.Run(1, 60, 60, 1);
  two.Run(1, 60, 60, 2);
  EXPECT_EQ(one.Bytes(), two.Bytes());
  options.lambda_divide_by_world = true;
  Problem divided(options), divided_by_one(options);
  divided.Run(1, 60, 60, 2);
  divided_by_one.Run(1, 60, 60, 1);
  EXPECT_EQ(divided_by_one.Bytes(), one.Bytes());
  EXPECT_NE(divided.Bytes(), one.Bytes());
  options.lambda_divide_by_world = false;
  options.lambda /= 2;
  Problem half(options);
  half.Run(1, 60, 60, 1);
  EXPECT_EQ(divided.Bytes(), half.Bytes());
}

std::vector<ElsaOptions> Storages() {
  std::vector<ElsaOptions> list;
  using Dual = ElsaOptions::DualType;
  for (const auto& [z, u, layout, moments] :
       {std::tuple{Dual::kFp32, Dual::kFp32, ElsaOptions::StateLayout::kMerged, ElsaOptions::Moments::kFp32},
        {Dual::kBf16, Dual::kBf16, ElsaOptions::StateLayout::kMerged, ElsaOptions::Moments::kInt8},
        {Dual::kE4M3, Dual::kBf16, ElsaOptions::StateLayout::kSeparate, ElsaOptions::Moments::kInt8},
        {Dual::kE5M2, Dual::kE5M2, ElsaOptions::StateLayout::kMerged, ElsaOptions::Moments::kFp32}}) {
    list.push_back(Options());
    list.back().z_dtype = z;
    list.back().u_dtype = u;
    list.back().state_layout = layout;
    list.back().moments = moments;
    list.back().lambda_schedule = ElsaOptions::Schedule::kLinear;
  }
  return list;
}

TEST(ElsaOptimizerTest, ResumesBitForBit) {
  for (const ElsaOptions& options : Storages()) {
    for (const int64_t cut : {1, 8, 9, 37}) {  // before, at and behind projections
      Problem undisturbed(options), first(options), second(options);
      undisturbed.Run(1, 60, 60);
      first.Run(1, cut, 60);
      second.CopyFrom(first);
      second.Run(cut + 1, 60, 60);
      EXPECT_EQ(second.Bytes(), undisturbed.Bytes()) << cut;
      second.optimizer().Finalize(second.stream());
      undisturbed.optimizer().Finalize(undisturbed.stream());
      EXPECT_EQ(second.Bytes(), undisturbed.Bytes()) << cut;
    }
  }
}

// Elsa-L: narrow states reach the loss of wide ones. With a scale forgotten, codes read as numbers up to 448 would pull
// the weights away.
TEST(ElsaOptimizerTest, NarrowStatesReachTheLossOfWideOnes) {
  std::vector<double> losses;
  for (ElsaOptions options : Storages()) {
    options.lambda_schedule = ElsaOptions::Schedule::kConstant;
    Problem problem(options);
    const double start = problem.Loss();
    problem.Run(1, 300, 300);
    problem.optimizer().Finalize(problem.stream());
    losses.push_back(problem.Loss());
    EXPECT_LT(losses.back(), 0.5 * start);
    EXPECT_NEAR(losses.back(), losses.front(), 0.05 * losses.front());
  }
}

TEST(ElsaOptimizerTest, MetricsComeWithProjections) {
  ElsaOptions options = Options();
  options.lambda = 10;
  options.projection = ElsaOptions::Projection::kMagnitude;
  Problem problem(options);
  std::map<std::string, double> metrics;
  problem.Run(1, 1);
  problem.optimizer().AddMetrics(&metrics);
  EXPECT_EQ(metrics.at("elsa_lambda"), 10);
  EXPECT_EQ(metrics.size(), 6u);
  metrics.clear();
  problem.Run(2, 8);
  problem.optimizer().AddMetrics(&metrics);
  EXPECT_TRUE(metrics.empty());
  problem.Run(9, 9);
  problem.optimizer().AddMetrics(&metrics);
  const double early = metrics.at("elsa_residual");
  double flips = metrics.at("elsa_mask_flips");
  for (int64_t step = 10; step <= 801; ++step) {
    problem.Run(step, step);
    metrics.clear();
    problem.optimizer().AddMetrics(&metrics);
    if (!metrics.empty()) flips += metrics.at("elsa_mask_flips");
  }
  // As many leave the mask as enter it.
  const double kept = 1 - metrics.at("elsa_sparsity"), half = metrics.at("elsa_mask_flips") / 2;
  EXPECT_NEAR(metrics.at("elsa_mask_iou"), (kept - half) / (kept + half), 1e-12);
  EXPECT_NEAR(kept, 0.4, 0.02);  // whole elements
  EXPECT_GT(metrics.at("elsa_first_mask_flips"), 0);
  EXPECT_GE(flips, metrics.at("elsa_first_mask_flips"));
  EXPECT_LT(metrics.at("elsa_residual"), 0.5 * early);
}

TEST(ElsaOptimizerTest, RefusesWhatThePatternDoesNotDivide) {
  ElsaOptions options = Options();
  options.pattern = ElsaOptions::Pattern::k4To8;
  const Problem problem(Options(), 12);
  EXPECT_THAT(CheckElsa(options, problem.parameters()),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("q has 12; exclude it")));
  options.pattern = ElsaOptions::Pattern::k2To4;
  EXPECT_OK(CheckElsa(options, problem.parameters()));
  options.exclude = {"layers.*"};
  EXPECT_THAT(CheckElsa(options, problem.parameters()),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("leaves no matrix")));
}

}  // namespace
}  // namespace trainyard::optim
