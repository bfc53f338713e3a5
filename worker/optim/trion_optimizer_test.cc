#include "worker/optim/trion_optimizer.h"

#include <algorithm>
#include <cmath>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
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
using Coefficients = spec::TrionOptions::Coefficients;
using UpdateScale = spec::TrionOptions::UpdateScale;

const std::vector<std::vector<int64_t>> kShapes = {{24, 10}, {9, 20}, {12, 12}, {14}};

spec::TrionOptions Options() {
  spec::TrionOptions options;
  options.subspace.rank = 4;
  options.weight_decay = 0.1;
  return options;
}

MakeForTest Maker(const spec::TrionOptions& options) {
  return [options](std::vector<OptimizerParameter> parameters, Arena& arena) {
    return MakeTrionOptimizer(options, std::move(parameters), arena);
  };
}

SmallMatrix Orthogonalized(SmallMatrix x, const spec::TrionOptions& o) {
  const double schedule[5][3] = {{4.0848, -6.8946, 2.9270},
                                 {3.9505, -6.3029, 2.6377},
                                 {3.7418, -5.5913, 2.3037},
                                 {2.8769, -3.1427, 1.2046},
                                 {2.8366, -3.0525, 1.2012}};
  const double fixed[3] = {3.4445, -4.7750, 2.0315};
  x = Sum(1 / (std::sqrt(x.Energy()) + 1e-7), x, 0, x);
  for (int step = 0; step < o.newton_schulz_steps; ++step) {
    const double* k = o.coefficients == Coefficients::kFixed ? fixed : schedule[step];
    const SmallMatrix a = x * x.Transposed();
    x = Sum(k[0], x, 1, Sum(k[1], a, k[2], a * a) * x);
  }
  return x;
}

// One matrix by the formulas of dct-lowrank.md 2.6, in double. Wide ones are transposed but for their scale.
struct Reference {
  Reference(const spec::TrionOptions& options, const HostTensor& weight)
      : o(options),
        rows(weight.view().dim(0)),
        cols(weight.view().dim(1)),
        w(Upright(weight)),
        momentum(w.rows, w.cols),
        p(DctVectors(w.cols)) {}

  SmallMatrix Upright(const HostTensor& x) const {
    const SmallMatrix matrix(x, rows, cols);
    return rows < cols ? matrix.Transposed() : matrix;
  }
  double Scale() const {
    const double r = static_cast<double>(rows), c = static_cast<double>(cols);
    switch (o.update_scale) {
      case UpdateScale::kKj:
        return std::max(1.0, std::sqrt(r / c));
      case UpdateScale::kNone:
        return 1;
      case UpdateScale::kKimi:
        return 0.2 * std::sqrt(std::max(r, c));
      case UpdateScale::kDion:
        return std::sqrt(r / c);
    }
    return 0;
  }
  void Update(double lr, double factor, const HostTensor& gradient) {
    const SmallMatrix b = Sum(1, momentum, factor, Upright(gradient));
    const SmallMatrix s = b * p;
    std::vector<std::pair<double, int64_t>> scores;
    for (int64_t j = 0; j < s.cols; ++j) {
      double score = 0;
      for (int64_t i = 0; i < s.rows; ++i) score += std::abs(s.at(i, j));
      scores.push_back({-score, j});
    }
    std::sort(scores.begin(), scores.end());
    std::vector<int64_t> chosen;
    for (int64_t q = 0; q < std::min<int64_t>(o.subspace.rank, s.cols); ++q) {
      chosen.push_back(scores[static_cast<size_t>(q)].second);
    }
    std::sort(chosen.begin(), chosen.end());
    const SmallMatrix pr = p.Columns(chosen), low = b * pr;
    momentum = Sum(1, b, -(1 - o.mu), low * pr.Transposed());
    w = Sum(1 - lr * o.weight_decay, w, -lr * Scale(), Orthogonalized(low, o) * pr.Transposed());
  }
  std::vector<double> Weight() const { return (rows < cols ? w.Transposed() : w).values; }
  std::vector<double> Momentum() const { return (rows < cols ? momentum.Transposed() : momentum).values; }

  spec::TrionOptions o;
  int64_t rows, cols;
  SmallMatrix w, momentum, p;
};

TEST(TrionOptimizer, MatchesTheFormulasInDouble) {
  for (const UpdateScale scale : {UpdateScale::kKj, UpdateScale::kNone, UpdateScale::kKimi, UpdateScale::kDion}) {
    for (const Coefficients coefficients : {Coefficients::kFixed, Coefficients::kScheduled}) {
      spec::TrionOptions options = Options();
      options.update_scale = scale;
      options.coefficients = coefficients;
      OptimizerRun run(Maker(options), kShapes, DType::kF32);
      std::vector<Reference> references;
      for (size_t i = 0; i < 3; ++i) references.emplace_back(options, run.leading[i]);
      Stream stream(2);
      for (int64_t t = 1; t <= 5; ++t) {
        const double lr = 0.1 / static_cast<double>(t), factor = t % 2 == 0 ? 0.5 : 1.0;
        run.Update(t, lr, factor, stream);
        for (size_t i = 0; i < 3; ++i) references[i].Update(lr, factor, run.GradientOf(i, t));
      }
      for (size_t i = 0; i < 3; ++i) {
        EXPECT_THAT(run.leading[i].ToDoubles(), AllNear(references[i].Weight(), {.absolute = 2e-4})) << i;
        const std::string name = "trion.momentum/p" + std::to_string(i);
        const TensorView momentum = run.State(name);
        EXPECT_THAT(SmallMatrix(momentum, momentum.dim(0), momentum.dim(1)).values,
                    AllNear(references[i].Momentum(), {.absolute = 1e-5}));
      }
    }
  }
}

// dct-lowrank.md section 5: NS(B P) P^T = NS(B) for an orthonormal P, so with r = n this is Muon, whatever the basis,
// and the momentum is mu B.
TEST(TrionOptimizer, FullRankIsMuon) {
  spec::TrionOptions options = Options();
  options.subspace.rank = 1000;
  OptimizerRun run(Maker(options), kShapes, DType::kF32);
  Stream stream(1);
  std::vector<SmallMatrix> w, momentum;
  for (size_t i = 0; i < 3; ++i) {
    w.emplace_back(run.leading[i], kShapes[i][0], kShapes[i][1]);
    momentum.emplace_back(kShapes[i][0], kShapes[i][1]);
  }
  for (int64_t t = 1; t <= 3; ++t) {
    run.Update(t, 0.05, 1, stream);
    for (size_t i = 0; i < 3; ++i) {
      const SmallMatrix b = Sum(1, momentum[i], 1, SmallMatrix(run.GradientOf(i, t), kShapes[i][0], kShapes[i][1]));
      momentum[i] = Sum(options.mu, b, 0, b);
      const double s = std::max(1.0, std::sqrt(static_cast<double>(b.rows) / static_cast<double>(b.cols)));
      w[i] = Sum(1 - 0.05 * options.weight_decay, w[i], -0.05 * s, Orthogonalized(b, options));
    }
  }
  for (size_t i = 0; i < 3; ++i) EXPECT_THAT(run.leading[i].ToDoubles(), AllNear(w[i].values, {.absolute = 1e-4})) << i;
}

TEST(TrionOptimizer, OthersTakeAdamAtTheirOwnRateWithoutDecay) {
  spec::TrionOptions options = Options();
  options.learning_rate = 0.02;
  options.adam_learning_rate = 0.001;
  options.subspace.full_rank_min_dim = 24;  // of kShapes, 24 x 10 is not below
  OptimizerRun run(Maker(options), kShapes, DType::kF32);
  spec::AdamWOptions adam;
  adam.beta1 = options.adam_beta1;
  adam.beta2 = options.adam_beta2;
  adam.epsilon = options.adam_epsilon;
  adam.weight_decay = 0;
  OptimizerRun expected([&](std::vector<OptimizerParameter> parameters,
                            Arena& arena) { return MakeAdamWOptimizer(adam, std::move(parameters), arena); },
                        kShapes, DType::kF32);
  Stream stream(1);
  for (int64_t t = 1; t <= 3; ++t) {
    run.Update(t, 0.01, 0.7, stream);  // half of the peak
    expected.Update(t, 0.0005, 0.7, stream);
  }
  run.Update(4, 0, 0.7, stream);  // and a rate of 0 moves nothing
  for (const size_t i : {0, 3}) EXPECT_EQ(run.leading[i].Bytes(), expected.leading[i].Bytes()) << i;
}

TEST(TrionOptimizer, RestoredRunHasTheBitsOfAnUndisturbedOne) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    OptimizerRun undisturbed(Maker(Options()), kShapes, dtype), first(Maker(Options()), kShapes, dtype);
    Stream stream(1), other_stream(3);
    for (int64_t t = 1; t <= 6; ++t) undisturbed.Update(t, 0.01, 0.7, stream);
    for (int64_t t = 1; t <= 3; ++t) first.Update(t, 0.01, 0.7, stream);
    OptimizerRun second(Maker(Options()), kShapes, dtype);
    second.RestoreFrom(first);
    for (int64_t t = 4; t <= 6; ++t) second.Update(t, 0.01, 0.7, other_stream);
    EXPECT_EQ(second.Bytes(), undisturbed.Bytes());
  }
}

// dct-lowrank.md 2.8: R C and r indices a matrix; the residual is inside M.
TEST(TrionOptimizer, MemoryIsAsTheTableSays) {
  Arena arena = Arena::CountOnly();
  char nothing;
  OptimizerParameter parameter;
  parameter.weight = parameter.gradient = TensorView(&nothing, DType::kF32, {2048, 1024});
  spec::TrionOptions options = Options();
  options.subspace.rank = 128;
  MakeTrionOptimizer(options, {parameter}, arena);
  EXPECT_EQ(arena.plan().at("moments"), 4 * 2048 * 1024);
  EXPECT_EQ(arena.plan().at("indices"), 4 * 128);
  EXPECT_EQ(arena.plan().at("basis"), 4 * 1024 * 1024);
}

TEST(TrionOptimizer, LayersHaveRanksOfTheirOwn) {
  spec::TrionOptions options = Options();
  options.subspace.layer_ranks = {{"p1", 2}};
  OptimizerRun mixed(Maker(options), kShapes, DType::kF32);
  EXPECT_EQ(mixed.State("trion.indices/p0").dim(0), 4);
  EXPECT_EQ(mixed.State("trion.indices/p1").dim(0), 2);
  OptimizerRun of_4(Maker(Options()), kShapes, DType::kF32);
  options = Options();
  options.subspace.rank = 2;
  OptimizerRun of_2(Maker(options), kShapes, DType::kF32);
  Stream stream(1);
  for (int64_t t = 1; t <= 3; ++t) {
    for (OptimizerRun* run : {&mixed, &of_4, &of_2}) run->Update(t, 0.05, 1, stream);
  }
  EXPECT_EQ(mixed.leading[0].ToDoubles(), of_4.leading[0].ToDoubles());
  EXPECT_EQ(mixed.leading[1].ToDoubles(), of_2.leading[1].ToDoubles());
  EXPECT_NE(mixed.leading[1].ToDoubles(), of_4.leading[1].ToDoubles());
}

TEST(TrionOptimizer, SameBitsForAnyThreadCount) {
  kernels::testing::ExpectSameBitsForAnyThreadCount([](Stream& stream) {
    spec::TrionOptions options = Options();
    options.subspace.rank = 40;
    OptimizerRun run(Maker(options), {{500, 70}, {70, 300}, {9}}, DType::kF32);
    for (int64_t t = 1; t <= 3; ++t) run.Update(t, 0.01, 0.7, stream);
    return run.Bytes();
  });
}

}  // namespace
}  // namespace trainyard::optim
