#include "worker/optim/dct_adamw_optimizer.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/optim/error_feedback.h"
#include "kernels/testing/all_near.h"
#include "kernels/testing/op_case.h"
#include "worker/optim/adamw_optimizer.h"
#include "worker/optim/testing/optimizer_run.h"
#include "worker/optim/testing/small_matrix.h"

namespace trainyard::optim {
namespace {

using kernels::Arena;
using kernels::DType;
using kernels::Stream;
using kernels::TensorView;
using kernels::testing::AllNear;
using kernels::testing::HostTensor;
using testing::DctVectors;
using testing::MakeForTest;
using testing::OptimizerRun;
using testing::SmallMatrix;
using ErrorFeedback = spec::DctAdamWOptions::ErrorFeedback;

const std::vector<std::vector<int64_t>> kShapes = {{24, 10}, {9, 20}, {12, 12}, {14}};

spec::DctAdamWOptions Options() {
  spec::DctAdamWOptions options;
  options.subspace.rank = 4;
  options.weight_decay = 0.1;
  options.beta2 = 0.95;
  return options;
}

MakeForTest Maker(const spec::DctAdamWOptions& options) {
  return [options](std::vector<OptimizerParameter> parameters, Arena& arena) {
    return MakeDctAdamWOptimizer(options, std::move(parameters), arena);
  };
}

MakeForTest AdamWMaker(const spec::DctAdamWOptions& like) {
  spec::AdamWOptions options;
  options.beta1 = like.beta1;
  options.beta2 = like.beta2;
  options.epsilon = like.epsilon;
  options.weight_decay = like.weight_decay;
  return [options](std::vector<OptimizerParameter> parameters, Arena& arena) {
    return MakeAdamWOptimizer(options, std::move(parameters), arena);
  };
}

// One matrix by the formulas of dct-lowrank.md 2.5, in double, with an explicit rotation. Wide ones are transposed.
struct Reference {
  Reference(const spec::DctAdamWOptions& options, const HostTensor& weight)
      : o(options),
        is_wide(weight.view().dim(0) < weight.view().dim(1)),
        w(Upright(weight)),
        e(w.rows, w.cols),
        p(DctVectors(w.cols)),
        r(std::min<int64_t>(options.subspace.rank, w.cols)),
        m(w.rows, r),
        v(w.rows, r) {}

  SmallMatrix Upright(const HostTensor& x) const {
    const SmallMatrix matrix(x, x.view().dim(0), x.view().dim(1));
    return is_wide ? matrix.Transposed() : matrix;
  }

  void Update(int64_t t, double lr, double factor, const HostTensor& gradient) {
    const SmallMatrix a = Sum(factor, Upright(gradient), 1, e);
    const bool refresh = t == 1 || t % o.update_gap == 0;
    const std::vector<int64_t> old = chosen;
    if (refresh) chosen = Choose(a * p);
    const SmallMatrix pr = p.Columns(chosen);
    const SmallMatrix low = a * pr;
    if (o.error_feedback == ErrorFeedback::kFull) e = Sum(1, a, -1, low * pr.Transposed());
    if (t > 1 && o.rotate && refresh) {
      const SmallMatrix rotation = p.Columns(old).Transposed() * pr;
      m = m * rotation;
      v = v * rotation;
      for (double& value : v.values) value = std::abs(value);
    }
    m = Sum(o.beta1, m, 1 - o.beta1, low);
    SmallMatrix u(w.rows, r);
    const double c2 = 1 - std::pow(o.beta2, static_cast<double>(t)), c1 = 1 - std::pow(o.beta1, static_cast<double>(t));
    for (size_t i = 0; i < v.values.size(); ++i) {
      v.values[i] = o.beta2 * v.values[i] + (1 - o.beta2) * low.values[i] * low.values[i];
      u.values[i] = m.values[i] / (std::sqrt(v.values[i]) + o.epsilon * std::sqrt(c2));
    }
    w = Sum(1 - lr * o.weight_decay, w, -lr * std::sqrt(c2) / c1, u * pr.Transposed());
  }

  std::vector<int64_t> Choose(const SmallMatrix& s) const {
    std::vector<std::pair<double, int64_t>> scores;
    for (int64_t j = 0; j < s.cols; ++j) {
      double score = 0;
      for (int64_t i = 0; i < s.rows; ++i) {
        score += o.subspace.norm == spec::SubspaceOptions::Norm::kL1 ? std::abs(s.at(i, j)) : s.at(i, j) * s.at(i, j);
      }
      scores.push_back({-score, j});
    }
    std::sort(scores.begin(), scores.end());
    std::vector<int64_t> result;
    for (int64_t q = 0; q < r; ++q) result.push_back(scores[static_cast<size_t>(q)].second);
    std::sort(result.begin(), result.end());
    return result;
  }

  std::vector<double> Weight() const { return (is_wide ? w.Transposed() : w).values; }

  spec::DctAdamWOptions o;
  bool is_wide;
  SmallMatrix w, e, p;
  int64_t r;
  SmallMatrix m, v;
  std::vector<int64_t> chosen;
};

TEST(DctAdamWOptimizer, MatchesTheFormulasInDouble) {
  for (const int gap : {1, 3}) {
    for (const bool rotate : {true, false}) {
      for (const ErrorFeedback feedback : {ErrorFeedback::kNone, ErrorFeedback::kFull}) {
        for (const auto norm : {spec::SubspaceOptions::Norm::kL1, spec::SubspaceOptions::Norm::kL2}) {
          spec::DctAdamWOptions options = Options();
          options.update_gap = gap;
          options.rotate = rotate;
          options.error_feedback = feedback;
          options.subspace.norm = norm;
          OptimizerRun run(Maker(options), kShapes, DType::kF32);
          std::vector<Reference> references;
          for (size_t i = 0; i < 3; ++i) references.emplace_back(options, run.leading[i]);
          Stream stream(2);
          for (int64_t t = 1; t <= 8; ++t) {
            const double lr = 0.1 / static_cast<double>(t), factor = t % 2 == 0 ? 0.5 : 1.0;
            run.Update(t, lr, factor, stream);
            for (size_t i = 0; i < 3; ++i) references[i].Update(t, lr, factor, run.GradientOf(i, t));
          }
          for (size_t i = 0; i < 3; ++i) {
            EXPECT_THAT(run.leading[i].ToDoubles(), AllNear(references[i].Weight(), {.absolute = 1e-4}))
                << "parameter " << i << ", gap " << gap << ", rotate " << rotate;
          }
        }
      }
    }
  }
}

// Each matrix by the rank of the first pattern that its name matches, the last by that of all. Fails if scratch or
// moments are cut by one rank for all.
TEST(DctAdamWOptimizer, LayersHaveRanksOfTheirOwn) {
  spec::DctAdamWOptions options = Options();
  options.error_feedback = ErrorFeedback::kFull;
  options.subspace.layer_ranks = {{"p0", 7}, {"*1", 3}, {"?0", 1}};
  OptimizerRun run(Maker(options), kShapes, DType::kF32);
  std::vector<Reference> references;
  for (const int32_t rank : {7, 3, 4}) {
    spec::DctAdamWOptions alone = options;
    alone.subspace.rank = rank;
    references.emplace_back(alone, run.leading[references.size()]);
  }
  EXPECT_EQ(run.State("dct_adamw.m/p0").dim(1), 7);
  EXPECT_EQ(run.State("dct_adamw.m/p1").dim(0), 3);
  EXPECT_EQ(run.State("dct_adamw.indices/p2").dim(0), 4);
  Stream stream(2);
  for (int64_t t = 1; t <= 5; ++t) {
    run.Update(t, 0.05, 1, stream);
    for (size_t i = 0; i < 3; ++i) references[i].Update(t, 0.05, 1, run.GradientOf(i, t));
  }
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_THAT(run.leading[i].ToDoubles(), AllNear(references[i].Weight(), {.absolute = 1e-4})) << i;
  }
}

// In few bits the run stays near that of full feedback, and away from that without: the codes are added where they
// belong.
TEST(DctAdamWOptimizer, QuantizedFeedbackIsNearFullFeedback) {
  const auto weights_of = [](ErrorFeedback feedback) {
    spec::DctAdamWOptions options = Options();
    options.error_feedback = feedback;
    options.update_gap = 100;  // one choice, so that small errors stay small
    OptimizerRun run(Maker(options), kShapes, DType::kF32);
    Stream stream(1);
    for (int64_t t = 1; t <= 5; ++t) run.Update(t, 0.01, 1, stream);
    return SmallMatrix(run.gradients[0], 24, 10).values;  // the last direction
  };
  const auto kept_of = [](ErrorFeedback feedback) {
    spec::DctAdamWOptions options = Options();
    options.error_feedback = feedback;
    options.update_gap = 100;
    OptimizerRun run(Maker(options), kShapes, DType::kF32);
    Stream stream(1);
    for (int64_t t = 1; t <= 5; ++t) run.Update(t, 0.01, 1, stream);
    HostTensor kept(DType::kF32, {24, 10});
    kernels::FeedbackStore store = {.bits = feedback == ErrorFeedback::kFull   ? 32
                                            : feedback == ErrorFeedback::kInt8 ? 8
                                                                               : 4,
                                    .codes = run.State("dct_adamw.feedback/p0")};
    if (store.bits != 32) {
      store.min = run.State("dct_adamw.feedback_min/p0");
      store.max = run.State("dct_adamw.feedback_max/p0");
    }
    AddFeedback({.gradient = kept, .store = store}, stream);
    return kept.ToDoubles();
  };
  const std::vector<double> full = kept_of(ErrorFeedback::kFull);
  // Residuals of five gradients of size 0.1 reach about 0.6: a unit is 0.005 in 8 bits and 0.08 in 4, and five
  // roundings add up.
  EXPECT_THAT(kept_of(ErrorFeedback::kInt8), AllNear(full, {.absolute = 0.015}));
  EXPECT_THAT(kept_of(ErrorFeedback::kInt4), AllNear(full, {.absolute = 0.25}));
  EXPECT_NE(weights_of(ErrorFeedback::kInt8), weights_of(ErrorFeedback::kNone));
}

// dct-lowrank.md section 5: a full-rank subspace with the identity as its basis is AdamW, in every bit.
TEST(DctAdamWOptimizer, FullRankIdentityHasTheBitsOfAdamW) {
  spec::DctAdamWOptions options = Options();
  options.subspace.rank = 1000;
  options.error_feedback = ErrorFeedback::kNone;
  const MakeForTest identity = [options](std::vector<OptimizerParameter> parameters, Arena& arena) {
    BasisCache bases([](const TensorView& vectors, Stream&) {
      const int64_t n = vectors.dim(0);
      for (int64_t i = 0; i < n * n; ++i) vectors.as<float>()[i] = i % (n + 1) == 0 ? 1.0f : 0.0f;
    });
    return MakeDctAdamWOptimizer(options, std::move(parameters), std::move(bases), arena);
  };
  const std::vector<std::vector<int64_t>> shapes = {{240, 33}, {33, 700}, {64, 64}, {14}};
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    OptimizerRun low_rank(identity, shapes, dtype), adamw(AdamWMaker(options), shapes, dtype);
    Stream stream(2);
    for (int64_t t = 1; t <= 4; ++t) {
      low_rank.Update(t, 0.01, 0.7, stream);
      adamw.Update(t, 0.01, 0.7, stream);
    }
    for (size_t i = 0; i < shapes.size(); ++i) {
      EXPECT_EQ(low_rank.leading[i].Bytes(), adamw.leading[i].Bytes()) << i;
      if (dtype == DType::kBF16) {
        EXPECT_EQ(low_rank.weights[i].Bytes(), adamw.weights[i].Bytes()) << i;
      }
    }
  }
}

TEST(DctAdamWOptimizer, LargeMatricesAndVectorsTakeAdamW) {
  spec::DctAdamWOptions options = Options();
  options.subspace.full_rank_min_dim = 20;  // of kShapes, only 12 x 12 is below
  OptimizerRun run(Maker(options), kShapes, DType::kF32), adamw(AdamWMaker(options), kShapes, DType::kF32);
  Stream stream(1);
  for (int64_t t = 1; t <= 3; ++t) {
    run.Update(t, 0.01, 0.7, stream);
    adamw.Update(t, 0.01, 0.7, stream);
  }
  for (const size_t i : {0, 1, 3}) EXPECT_EQ(run.leading[i].Bytes(), adamw.leading[i].Bytes()) << i;
  EXPECT_NE(run.leading[2].Bytes(), adamw.leading[2].Bytes());
}

// All of the state is in state(): indices, moments, codes and extremes. The basis is computed again.
TEST(DctAdamWOptimizer, RestoredRunHasTheBitsOfAnUndisturbedOne) {
  for (const ErrorFeedback feedback :
       {ErrorFeedback::kNone, ErrorFeedback::kInt4, ErrorFeedback::kInt8, ErrorFeedback::kFull}) {
    for (const int gap : {1, 4}) {  // 4: the first update after the restart needs the indices of the last refresh
      for (const DType dtype : {DType::kF32, DType::kBF16}) {
        spec::DctAdamWOptions options = Options();
        options.error_feedback = feedback;
        options.update_gap = gap;
        OptimizerRun undisturbed(Maker(options), kShapes, dtype), first(Maker(options), kShapes, dtype);
        Stream stream(1), other_stream(3);
        for (int64_t t = 1; t <= 9; ++t) undisturbed.Update(t, 0.01, 0.7, stream);
        for (int64_t t = 1; t <= 5; ++t) first.Update(t, 0.01, 0.7, stream);
        OptimizerRun second(Maker(options), kShapes, dtype);
        second.RestoreFrom(first);
        for (int64_t t = 6; t <= 9; ++t) second.Update(t, 0.01, 0.7, other_stream);
        EXPECT_EQ(second.Bytes(), undisturbed.Bytes()) << gap;
      }
    }
  }
}

TEST(DctAdamWOptimizer, RateZeroLeavesTheWeights) {
  OptimizerRun run(Maker(Options()), kShapes, DType::kF32), untouched(Maker(Options()), kShapes, DType::kF32);
  Stream stream(1);
  run.Update(1, 0, 1, stream);
  for (size_t i = 0; i < kShapes.size(); ++i) EXPECT_EQ(run.leading[i].Bytes(), untouched.leading[i].Bytes());
}

// An allocation of that many bytes, as the arena rounds it.
int64_t R(int64_t bytes) {
  return (bytes + 63) / 64 * 64;
}

kernels::MemoryPlan PlanOf(const spec::DctAdamWOptions& options,
                           const std::vector<std::pair<int64_t, int64_t>>& shapes) {
  Arena arena = Arena::CountOnly();
  std::vector<OptimizerParameter> parameters;
  char nothing;
  for (const auto& [rows, cols] : shapes) {
    OptimizerParameter parameter;
    parameter.weight = parameter.gradient = TensorView(&nothing, DType::kF32, {rows, cols});
    parameters.push_back(parameter);
  }
  MakeDctAdamWOptimizer(options, std::move(parameters), arena);
  return arena.plan();
}

// dct-lowrank.md 2.8, in f32: its example, and shapes of both orientations that share a basis.
TEST(DctAdamWOptimizer, MemoryIsAsTheTableSays) {
  constexpr int64_t kMiB = 1 << 20;
  spec::DctAdamWOptions options;
  options.subspace.rank = 512;
  options.error_feedback = ErrorFeedback::kInt8;
  kernels::MemoryPlan plan = PlanOf(options, {{4096, 4096}});
  EXPECT_EQ(plan.at("moments"), 16 * kMiB);  // 8 in bf16; AdamW's are 128
  EXPECT_EQ(plan.at("indices"), 4096);
  EXPECT_EQ(plan.at("error_feedback"), 16 * kMiB + 2 * 4 * 4096);
  EXPECT_EQ(plan.at("basis"), 64 * kMiB);

  for (const bool rotate : {true, false}) {
    for (const ErrorFeedback feedback :
         {ErrorFeedback::kNone, ErrorFeedback::kInt4, ErrorFeedback::kInt8, ErrorFeedback::kFull}) {
      options.subspace.rank = 24;
      options.rotate = rotate;
      options.error_feedback = feedback;
      plan = PlanOf(options, {{100, 40}, {40, 81}, {40, 40}, {16, 70}});
      EXPECT_EQ(plan.at("moments"),
                2 * (R(4 * 100 * 24) + R(4 * 81 * 24) + R(4 * 40 * 24) + R(4 * 70 * 16)));  // rank cut to 16
      EXPECT_EQ(plan.at("indices"), (rotate ? 2 : 1) * (3 * R(4 * 24) + R(4 * 16)));
      EXPECT_EQ(plan.at("basis"), R(4 * 40 * 40) + R(4 * 16 * 16));
      int64_t feedback_bytes = 0;
      for (const auto& [rows, cols] : {std::pair{100, 40}, {40, 81}, {40, 40}, {16, 70}}) {
        if (feedback == ErrorFeedback::kFull) feedback_bytes += R(4 * rows * cols);
        if (feedback == ErrorFeedback::kInt8) feedback_bytes += R(rows * cols) + 2 * R(4 * rows);
        if (feedback == ErrorFeedback::kInt4) feedback_bytes += R(rows * ((cols + 1) / 2)) + 2 * R(4 * rows);
      }
      EXPECT_EQ(plan["error_feedback"], feedback_bytes);
    }
  }
}

// One vector of three is replaced: gradients along basis vectors 0, 1, 2 at first, then along 1, 2, 5.
TEST(DctAdamWOptimizer, ChurnCountsTheNewVectors) {
  spec::DctAdamWOptions options = Options();
  options.subspace.rank = 3;
  options.error_feedback = ErrorFeedback::kNone;
  OptimizerRun run(Maker(options), {{20, 8}}, DType::kF32);
  const SmallMatrix p = DctVectors(8);
  const HostTensor factor = HostTensor::Of(DType::kF32, {1}, {1});
  Stream stream(1);
  std::map<std::string, double> metrics;
  for (const std::vector<int64_t>& vectors : {std::vector<int64_t>{0, 1, 2}, {1, 2, 5}}) {
    const SmallMatrix random(HostTensor::Normal(DType::kF32, {20, 3}, 5), 20, 3);
    const SmallMatrix gradient = random * p.Columns(vectors).Transposed();
    for (size_t i = 0; i < gradient.values.size(); ++i) {
      run.gradients[0].as<float>()[i] = static_cast<float>(gradient.values[i]);
    }
    run.optimizer->Update({.update = vectors[0] + 1, .learning_rate = 0.01, .gradient_factor = factor}, stream);
    run.optimizer->AddMetrics(&metrics);
  }
  EXPECT_DOUBLE_EQ(metrics.at("subspace_churn"), 1.0 / 3);
}

TEST(DctAdamWOptimizer, SameBitsForAnyThreadCount) {
  kernels::testing::ExpectSameBitsForAnyThreadCount([](Stream& stream) {
    spec::DctAdamWOptions options = Options();
    options.subspace.rank = 40;
    OptimizerRun run(Maker(options), {{500, 70}, {70, 300}, {9}}, DType::kF32);
    for (int64_t t = 1; t <= 3; ++t) run.Update(t, 0.01, 0.7, stream);
    return run.Bytes();
  });
}

}  // namespace
}  // namespace trainyard::optim
