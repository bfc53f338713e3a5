#include "worker/optim/subspace.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <tuple>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/optim/error_feedback.h"
#include "kernels/testing/all_near.h"
#include "kernels/testing/host_tensor.h"
#include "worker/optim/testing/small_matrix.h"

namespace trainyard::optim {
namespace {

using kernels::Arena;
using kernels::DType;
using kernels::NormOrder;
using kernels::Stream;
using kernels::TensorView;
using kernels::testing::AllNear;
using kernels::testing::HostTensor;
using testing::DctVectors;
using ::testing::ElementsAre;
using testing::SmallMatrix;
using Basis = spec::SubspaceOptions::Basis;
using Similarity = spec::SubspaceOptions::Similarity;

spec::SubspaceOptions Options(Basis basis, Similarity similarity) {
  spec::SubspaceOptions options;
  options.basis = basis;
  options.similarity = similarity;
  return options;
}

void FillIdentity(const TensorView& vectors, Stream&) {
  const int64_t n = vectors.dim(0);
  for (int64_t i = 0; i < n * n; ++i) vectors.as<float>()[i] = i % (n + 1) == 0 ? 1.0f : 0.0f;
}

// One matrix's subspace with all that it needs.
struct Fixture {
  Fixture(int64_t rows, int64_t cols, int64_t rank, BasisCache cache) : bases(std::move(cache)) {
    const FixedBasis* basis = bases.Get(std::min(rows, cols), arena);
    scratch.Fit(rows, cols, rank, *basis);
    scratch.Allocate(arena);
    bases.Prepare(stream);
    subspace.emplace(rows, cols, rank, basis, &scratch);
    indices = HostTensor(DType::kI32, {subspace->rank()});
  }

  // What x becomes in the subspace that is chosen for it, in double from the f32 factors.
  SmallMatrix Chosen(const HostTensor& x, NormOrder norm) {
    const TensorView a = subspace->Select(x, norm, indices, stream);
    coordinates_energy = SmallMatrix(a, a.dim(0), a.dim(1)).Energy();
    subspace->UseVectors(indices, stream);
    return InFull(a);
  }
  SmallMatrix InFull(const TensorView& a) {
    const kernels::LowRankFactors factors = subspace->Matrix(a);
    const SmallMatrix x(factors.x, factors.x.dim(0), factors.x.dim(1));
    const SmallMatrix y(factors.y, factors.y.dim(0), factors.y.dim(1));
    return x * (factors.transpose_y ? y.Transposed() : y);
  }

  Stream stream{2};
  Arena arena = *Arena::Reserve(1 << 24);
  BasisCache bases;
  SubspaceScratch scratch;
  std::optional<Subspace> subspace;
  HostTensor indices = HostTensor(DType::kI32, {1});
  double coordinates_energy = 0;
};

struct Case {
  int64_t rows, cols, rank;
  Basis basis;
  Similarity similarity;
};

class SubspaceTest : public ::testing::TestWithParam<Case> {};

// dct-lowrank.md 2.3: what is left has the energy of what was not chosen, and that is at most 1 - r/n of the whole.
TEST_P(SubspaceTest, EnergySplitsAndTheResidualContracts) {
  const auto [rows, cols, rank, basis, similarity] = GetParam();
  Fixture f(rows, cols, rank, BasisCache(Options(basis, similarity)));
  for (const uint64_t seed : {1, 2, 3}) {
    const HostTensor x = HostTensor::Normal(DType::kF32, {rows, cols}, seed);
    const SmallMatrix a(x, rows, cols);
    const double residual = Sum(1, a, -1, f.Chosen(x, NormOrder::kL2)).Energy();
    EXPECT_NEAR((residual + f.coordinates_energy) / a.Energy(), 1, 1e-5);
    const double n = static_cast<double>(std::min(rows, cols));
    EXPECT_LE(residual / a.Energy(), 1 - static_cast<double>(rank) / n + 1e-6);
  }
}

// Of matrices that lie in a subspace of basis vectors, that one is found, and nothing is left.
TEST_P(SubspaceTest, FindsAPlantedSubspace) {
  const auto [rows, cols, rank, basis, similarity] = GetParam();
  Fixture f(rows, cols, rank, BasisCache(Options(basis, similarity)));
  const int64_t n = std::min(rows, cols);
  std::vector<int64_t> planted;
  for (int64_t q = 0; q < rank; ++q) planted.push_back(q * n / rank + (n / rank > 1 ? 1 : 0));
  const SmallMatrix p(f.bases.Get(n, f.arena)->vectors, n, n);
  const HostTensor random = HostTensor::Normal(DType::kF32, {std::max(rows, cols), rank}, 5);
  SmallMatrix a = SmallMatrix(random, std::max(rows, cols), rank) * p.Columns(planted).Transposed();
  if (rows < cols) a = a.Transposed();
  const HostTensor x = HostTensor::Of(DType::kF32, {rows, cols}, a.values);
  for (const NormOrder norm : {NormOrder::kL1, NormOrder::kL2}) {
    EXPECT_LT(Sum(1, a, -1, f.Chosen(x, norm)).Energy() / a.Energy(), 1e-11);
    for (int64_t q = 0; q < rank; ++q) {
      EXPECT_EQ(f.indices.as<int32_t>()[q], planted[static_cast<size_t>(q)]);
    }
  }
}

TEST_P(SubspaceTest, CoordinatesAlongTheChosenVectorsAreThoseOfTheChoice) {
  const auto [rows, cols, rank, basis, similarity] = GetParam();
  Fixture f(rows, cols, rank, BasisCache(Options(basis, similarity)));
  const HostTensor x = HostTensor::Normal(DType::kF32, {rows, cols}, 1);
  const TensorView chosen = f.subspace->Select(x, NormOrder::kL2, f.indices, f.stream);
  const SmallMatrix expected(chosen, chosen.dim(0), chosen.dim(1));
  f.subspace->UseVectors(f.indices, f.stream);
  const TensorView again = f.subspace->CoordinatesAlong(x, f.stream);
  EXPECT_THAT(SmallMatrix(again, chosen.dim(0), chosen.dim(1)).values, AllNear(expected.values, {.absolute = 1e-5}));
}

INSTANTIATE_TEST_SUITE_P(All, SubspaceTest,
                         ::testing::Values(Case{128, 64, 16, Basis::kDct2, Similarity::kFft},
                                           Case{128, 64, 16, Basis::kDct2, Similarity::kGemm},
                                           Case{128, 64, 16, Basis::kDct3, Similarity::kAuto},
                                           Case{30, 75, 7, Basis::kDct2, Similarity::kFft},
                                           Case{30, 75, 7, Basis::kDct2, Similarity::kGemm},
                                           Case{31, 40, 5, Basis::kRandom, Similarity::kAuto},
                                           Case{256, 256, 64, Basis::kDct2, Similarity::kAuto},
                                           Case{9, 4, 4, Basis::kDct2, Similarity::kAuto}));

// dct-lowrank.md section 5: 0.709 for n 64, r 16 and 128 rows; 0.729 for n 256, r 64 and 512 rows. 1 - r/n is 0.75.
TEST(SubspaceEnergy, OfNormalNumbersIsAsMeasured) {
  for (const auto& [rows, n, rank, expected] : {std::tuple{128, 64, 16, 0.709}, std::tuple{512, 256, 64, 0.729}}) {
    double ratio = 0;
    Fixture f(rows, n, rank, BasisCache(spec::SubspaceOptions{}));
    for (const uint64_t seed : {11, 12, 13, 14}) {
      const HostTensor x = HostTensor::Normal(DType::kF32, {rows, n}, seed);
      f.Chosen(x, NormOrder::kL2);
      ratio += 0.25 * (1 - f.coordinates_energy / SmallMatrix(x, rows, n).Energy());
    }
    EXPECT_NEAR(ratio, expected, 0.005);
  }
}

// Borderline choices may differ, what they hold may not (dct-lowrank.md, pitfall 11).
TEST(SubspaceEnergy, FftAndProductHoldTheSame) {
  for (const auto& [rows, cols] : {std::pair{300, 96}, std::pair{45, 200}}) {
    const HostTensor x = HostTensor::Normal(DType::kF32, {rows, cols}, 3);
    double energies[2];
    for (const Similarity similarity : {Similarity::kFft, Similarity::kGemm}) {
      Fixture f(rows, cols, 12, BasisCache(Options(Basis::kDct2, similarity)));
      EXPECT_EQ(f.bases.Get(std::min(rows, cols), f.arena)->plan != nullptr, similarity == Similarity::kFft);
      f.Chosen(x, NormOrder::kL1);
      energies[similarity == Similarity::kFft ? 0 : 1] = f.coordinates_energy;
    }
    EXPECT_NEAR(energies[0] / energies[1], 1, 1e-5);
  }
}

// dct-lowrank.md 2.3: l1 prefers a hundred small entries to one large, and leaves 0.96 of the energy where 0.5 is the
// bound of l2.
TEST(SubspaceEnergy, OnlyTheTwoNormContracts) {
  std::vector<double> values(200);
  for (size_t i = 0; i < 100; ++i) values[2 * i] = 0.02;
  values[1] = 1;
  const HostTensor x = HostTensor::Of(DType::kF32, {100, 2}, values);
  Fixture f(100, 2, 1, BasisCache(FillIdentity));
  const SmallMatrix a(x, 100, 2);
  EXPECT_NEAR(Sum(1, a, -1, f.Chosen(x, NormOrder::kL1)).Energy() / a.Energy(), 1 / 1.04, 1e-6);
  EXPECT_NEAR(Sum(1, a, -1, f.Chosen(x, NormOrder::kL2)).Energy() / a.Energy(), 0.04 / 1.04, 1e-6);
}

// m R with R = P[:, from]^T P[:, to] in double.
TEST(SubspaceRotate, IsTheProductWithTheExplicitRotation) {
  const std::vector<int64_t> from = {0, 2, 3, 7, 11, 12}, to = {1, 2, 7, 8, 11, 14};
  for (const bool is_tall : {true, false}) {
    Fixture f(is_tall ? 40 : 16, is_tall ? 16 : 40, 6, BasisCache(spec::SubspaceOptions{}));
    const SmallMatrix p = DctVectors(16);
    const SmallMatrix r = p.Columns(from).Transposed() * p.Columns(to);
    const HostTensor moment = HostTensor::Normal(DType::kF32, {is_tall ? 40 : 6, is_tall ? 6 : 40}, 4);
    const SmallMatrix m(moment, moment.view().dim(0), moment.view().dim(1));
    const SmallMatrix expected = is_tall ? m * r : r.Transposed() * m;
    const HostTensor a = HostTensor::Of(DType::kI32, {6}, {from.begin(), from.end()});
    const HostTensor b = HostTensor::Of(DType::kI32, {6}, {to.begin(), to.end()});
    f.subspace->Rotate(a, b, moment, f.stream);
    EXPECT_THAT(moment.ToDoubles(), AllNear(expected.values, {.absolute = 1e-12}));
    const std::vector<uint8_t> rotated = moment.Bytes();
    f.subspace->Rotate(b, b, moment, f.stream);  // the same set: nothing moves
    EXPECT_EQ(moment.Bytes(), rotated);
  }
}

// dct-lowrank.md section 5: nothing is lost, whatever is chosen. What was applied and what is kept sum to all
// gradients.
TEST(SubspaceFeedback, ConservesTheGradients) {
  Fixture f(6, 4, 1, BasisCache(spec::SubspaceOptions{}));
  const HostTensor g = HostTensor::Normal(DType::kF32, {6, 4}, 8);
  const HostTensor kept(DType::kF32, {6, 4});
  const kernels::FeedbackStore store = {.bits = 32, .codes = kept};
  SmallMatrix applied(6, 4);
  std::vector<int32_t> choices;
  for (int k = 1; k <= 12; ++k) {
    const HostTensor a = g.Copy();
    AddFeedback({.gradient = a, .store = store}, f.stream);
    const TensorView coordinates = f.subspace->Select(a, NormOrder::kL2, f.indices, f.stream);
    f.subspace->UseVectors(f.indices, f.stream);
    applied = Sum(1, applied, 1, f.InFull(coordinates));
    KeepResidual({.gradient = a, .selected = f.subspace->Matrix(coordinates), .store = store}, f.stream);
    EXPECT_THAT(Sum(1, applied, 1, SmallMatrix(kept, 6, 4)).values,
                AllNear(Sum(k, SmallMatrix(g, 6, 4), 0, applied).values, {.absolute = 1e-5}))
        << k;
    choices.push_back(f.indices.as<int32_t>()[0]);
  }
  // Neglected vectors win in the end (pitfall 5).
  for (int32_t vector = 0; vector < 4; ++vector) EXPECT_THAT(choices, ::testing::Contains(vector));
}

TEST(SubspaceShape, FollowsTheShorterSide) {
  Fixture tall(9, 5, 3, BasisCache(spec::SubspaceOptions{})), wide(5, 9, 8, BasisCache(spec::SubspaceOptions{}));
  EXPECT_EQ(tall.subspace->axis(), 1);
  EXPECT_EQ(wide.subspace->axis(), 0);
  EXPECT_THAT((std::vector{tall.subspace->state_rows(), tall.subspace->state_cols()}), ElementsAre(9, 3));
  EXPECT_THAT((std::vector{wide.subspace->state_rows(), wide.subspace->state_cols()}), ElementsAre(5, 9));  // cut
}

TEST(SubspaceShape, VectorsAndLargeMatricesHaveNone) {
  spec::SubspaceOptions options;
  options.full_rank_min_dim = 100;
  EXPECT_TRUE(HasSubspace(TensorView(nullptr, DType::kF32, {99, 3}), options));
  EXPECT_FALSE(HasSubspace(TensorView(nullptr, DType::kF32, {100, 3}), options));
  EXPECT_FALSE(HasSubspace(TensorView(nullptr, DType::kF32, {3, 100}), options));
  EXPECT_FALSE(HasSubspace(TensorView(nullptr, DType::kF32, {50}), options));
}

TEST(FixedBasis, OneCopyALengthAndOrthonormal) {
  Stream stream(1);
  for (const Basis kind : {Basis::kDct2, Basis::kDct3, Basis::kRandom}) {
    Arena arena = *Arena::Reserve(1 << 20);
    BasisCache bases(Options(kind, Similarity::kGemm));
    const FixedBasis* basis = bases.Get(24, arena);
    EXPECT_EQ(bases.Get(24, arena), basis);
    bases.Get(16, arena);
    EXPECT_EQ(arena.plan().at("basis"), 4 * (24 * 24 + 16 * 16));
    bases.Prepare(stream);
    const SmallMatrix p(basis->vectors, 24, 24);
    SmallMatrix expected(24, 24);
    for (int64_t i = 0; i < 24; ++i) expected.at(i, i) = 1;
    EXPECT_THAT((p.Transposed() * p).values, AllNear(expected.values, {.absolute = 1e-6}));
    const SmallMatrix dct2 = DctVectors(24);
    if (kind == Basis::kDct2) {
      EXPECT_THAT(p.values, AllNear(dct2.values, {.absolute = 1e-6}));
    }
    if (kind == Basis::kDct3) {
      EXPECT_THAT(p.values, AllNear(dct2.Transposed().values, {.absolute = 1e-6}));
    }
  }
}

TEST(LayerRanksTest, TheFirstPatternThatMatchesGivesTheRank) {
  spec::SubspaceOptions options;
  options.rank = 5;
  options.full_rank_min_dim = 100;
  options.layer_ranks = {{"layers.*.down.weight", 7}, {"layers.0.*", 9}};
  EXPECT_EQ(RankOf("layers.0.down.weight", options), 7);
  EXPECT_EQ(RankOf("layers.0.qkv.weight", options), 9);
  EXPECT_EQ(RankOf("layers.1.qkv.weight", options), 5);

  char nothing;
  std::vector<OptimizerParameter> parameters(2);
  parameters[0].name = "layers.0.down.weight";
  parameters[0].weight = TensorView(&nothing, DType::kF32, {8, 8});
  parameters[1].name = "layers.0.norm";
  parameters[1].weight = TensorView(&nothing, DType::kF32, {8});
  const absl::Status status = CheckLayerRanks(options, "subspace", parameters);  // a vector has no rank
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "subspace.layer_ranks[1].pattern: \"layers.0.*\" gives no matrix its rank");
  options.layer_ranks.pop_back();
  EXPECT_TRUE(CheckLayerRanks(options, "subspace", parameters).ok());
}

}  // namespace
}  // namespace trainyard::optim
