#include "worker/linear/mask_counting_scheme.h"

#include <cmath>
#include <functional>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/testing/host_tensor.h"
#include "worker/linear/make_linear_scheme.h"

namespace trainyard::linear {
namespace {

using kernels::DType;
using kernels::Stream;
using kernels::testing::HostTensor;
using Metrics = std::map<std::string, double>;

constexpr int64_t kRows = 256, kOut = 192;

// A layer's operands, and the scheme of these options with counts.
struct Case {
  explicit Case(const spec::LinearOptions& options, int64_t in = 256)
      : x(HostTensor::Normal(DType::kF32, {kRows, in}, 1)),
        w(HostTensor::Normal(DType::kF32, {kOut, in}, 2, 0.1)),
        plain(MakeLinearScheme(options)),
        counting(MakeMaskCountingScheme(MakeLinearScheme(options), MakeMaskProbe(options), options.exclude)) {}

  LinearSite Site(const std::string& name) const {
    return {.name = name, .rows = kRows, .in = x.view().dim(1), .out = kOut, .storage = DType::kF32};
  }
  std::vector<double> Forward(const LinearScheme& scheme, const std::string& name, int threads = 1) const {
    Stream stream(threads);
    const LinearSite site = Site(name);
    const HostTensor y(DType::kF32, {kRows, kOut});
    const HostTensor workspace(DType::kU8, {scheme.WorkspaceBytes(site)});
    scheme.Forward({.site = site, .parameters = steps}, {.x = x, .w = w, .y = y, .workspace = workspace}, stream);
    return y.ToDoubles();
  }
  Metrics Counted() const {
    Metrics metrics;
    counting->AddMetrics(&metrics);
    return metrics;
  }

  const HostTensor x, w;
  kernels::TensorView steps;
  const std::unique_ptr<LinearScheme> plain;
  const std::unique_ptr<MaskCountingScheme> counting;
};

double Share(const std::vector<double>& values, const std::function<bool(size_t)>& is_masked) {
  int64_t masked = 0;
  for (size_t i = 0; i < values.size(); ++i) masked += is_masked(i) ? 1 : 0;
  return static_cast<double>(masked) / static_cast<double>(values.size());
}

TEST(MaskCountingSchemeTest, IsTheSchemeAndCountsWhenAskedOnly) {
  const Case c({.scheme = spec::LinearQuest{.hadamard_dim = 128}, .exclude = {"layers.1.*"}});
  const std::vector<double> expected = c.Forward(*c.plain, "layers.0.qkv");
  EXPECT_EQ(c.Forward(*c.counting, "layers.0.qkv"), expected);
  EXPECT_TRUE(c.Counted().empty());

  c.counting->StartCounting();
  EXPECT_EQ(c.Forward(*c.counting, "layers.0.qkv"), expected);
  c.Forward(*c.counting, "layers.1.down");
  c.counting->StopCounting();
  c.Forward(*c.counting, "layers.0.down");
  const Metrics once = c.Counted();
  ASSERT_EQ(once.size(), 2u) << "excluded and uncounted layers add nothing";

  c.counting->StartCounting();  // from zero
  c.Forward(*c.counting, "layers.0.output", /*threads=*/3);
  c.Forward(*c.counting, "layers.0.gate_up");
  c.counting->StopCounting();
  EXPECT_EQ(c.Counted().at("masked_fraction_attention_inputs"), once.at("masked_fraction_attention_inputs"));
  EXPECT_EQ(c.Counted().at("masked_fraction_mlp_weights"), once.at("masked_fraction_attention_weights"));
}

// quest.md 2.2: 2 Q(alpha + T) of normal numbers, within four standard deviations of the count.
TEST(MaskCountingSchemeTest, NormalNumbersHaveTheShareOfTheMethod) {
  const double alphas[] = {2.513930578568423, 1.4935346200015913};
  const int widths[] = {4, 2};
  for (int i = 0; i < 2; ++i) {
    const Case c({.scheme = spec::LinearQuest{.weight_bits = widths[i], .activation_bits = widths[i]}, .exclude = {}});
    c.counting->StartCounting();
    c.Forward(*c.counting, "layers.0.down");
    const double border = alphas[i] * (1 + 1.0 / ((1 << widths[i]) - 1));
    const double share = std::erfc(border / std::sqrt(2.0));
    for (const auto& [name, elements] :
         {std::pair<const char*, double>{"inputs", kRows * 256}, {"weights", kOut * 256}}) {
      EXPECT_NEAR(c.Counted().at(std::string("masked_fraction_mlp_") + name), share, 4 * std::sqrt(share / elements))
          << name << ", " << widths[i] << " bits";
    }
  }
}

// Learned steps, in rows that do not end at a byte of the mask.
TEST(MaskCountingSchemeTest, CountsAreThoseOfTheElements) {
  spec::LinearQuest lsq{.hadamard_dim = 0,
                        .projection = spec::LinearQuest::Projection::kLsq,
                        .gradient_mask = spec::LinearQuest::GradientMask::kClip};
  Case c({.scheme = lsq, .exclude = {}}, 21);
  const HostTensor steps = HostTensor::Of(DType::kF32, {2}, {0.01, 0.2});  // of the weights, of the activations
  c.steps = steps;
  c.counting->StartCounting();
  c.Forward(*c.counting, "layers.0.qkv");
  const std::vector<double> x = c.x.ToDoubles(), w = c.w.ToDoubles();
  const double of_x = Share(x, [&](size_t i) { return std::abs(x[i]) > 7.5 * 0.2; });
  const double of_w = Share(w, [&](size_t i) { return std::abs(w[i]) > 7.5 * 0.01; });
  EXPECT_DOUBLE_EQ(c.Counted().at("masked_fraction_attention_inputs"), of_x);
  EXPECT_DOUBLE_EQ(c.Counted().at("masked_fraction_attention_weights"), of_w);
  EXPECT_GT(of_w, 0.3);
}

// quartet.md 2.3: what lies at 6 or beyond in units of its group's scale.
TEST(MaskCountingSchemeTest, QuartetMasksWhatItsScaleClips) {
  const Case c({.scheme = spec::LinearQuartet{.forward_hadamard_dim = 0}, .exclude = {}});
  c.counting->StartCounting();
  c.Forward(*c.counting, "layers.0.qkv");
  const std::vector<double> x = c.x.ToDoubles();
  std::vector<double> scales;
  for (size_t group = 0; group < x.size() / 32; ++group) {
    double sum = 0, squares = 0;
    for (size_t i = 0; i < 32; ++i) sum += x[group * 32 + i];
    for (size_t i = 0; i < 32; ++i) squares += std::pow(x[group * 32 + i] - sum / 32, 2);
    scales.push_back(std::exp2(std::floor(std::log2(2.92247856 / 6 * std::sqrt(squares / 32) + 1e-8))));
  }
  EXPECT_NEAR(c.Counted().at("masked_fraction_attention_inputs"),
              Share(x, [&](size_t i) { return std::abs(x[i]) >= 6 * scales[i / 32]; }), 1e-3);
  EXPECT_GT(c.Counted().at("masked_fraction_attention_inputs"), 0.02);
}

TEST(MaskCountingSchemeTest, SchemesWithoutMasksHaveNothingToCount) {
  const auto has_probe = [](auto scheme) { return MakeMaskProbe({.scheme = scheme, .exclude = {}}) != nullptr; };
  EXPECT_TRUE(has_probe(spec::LinearQuest{}));
  EXPECT_FALSE(has_probe(spec::LinearQuest{.gradient_mask = spec::LinearQuest::GradientMask::kStraightThrough}));
  EXPECT_FALSE(has_probe(spec::LinearQuest{.weight_grid = spec::LinearQuest::Grid::kNone,
                                           .activation_grid = spec::LinearQuest::Grid::kNone}));
  EXPECT_FALSE(has_probe(spec::LinearQuartet{.apply_mask = false}));
  EXPECT_FALSE(has_probe(spec::LinearQuartet{.forward_method = spec::LinearQuartet::ForwardMethod::kAbsMaxNearest}));
  EXPECT_FALSE(has_probe(spec::LinearQuartet2{}));
  EXPECT_FALSE(has_probe(spec::LinearFp8{}));
  EXPECT_FALSE(has_probe(spec::LinearFp32{}));
  // Weights only: one operand has a mask.
  const Case c({.scheme = spec::LinearQuest{.activation_grid = spec::LinearQuest::Grid::kNone}, .exclude = {}});
  c.counting->StartCounting();
  c.Forward(*c.counting, "layers.0.qkv");
  EXPECT_THAT(c.Counted(),
              ::testing::UnorderedElementsAre(::testing::Pair("masked_fraction_attention_weights", ::testing::Gt(0))));
}

}  // namespace
}  // namespace trainyard::linear
