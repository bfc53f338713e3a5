#include "worker/linear/quest_scheme.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/quant/quest_formula.h"
#include "kernels/testing/all_near.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/testing/op_case.h"

namespace trainyard::linear {
namespace {

using kernels::DType;
using kernels::kQuestClip;
using kernels::Stream;
using kernels::TensorView;
using kernels::testing::AllNear;
using kernels::testing::HostTensor;
using Grid = spec::LinearQuest::Grid;
using GradientMask = spec::LinearQuest::GradientMask;
using Projection = spec::LinearQuest::Projection;
using Matrix = std::vector<std::vector<double>>;

spec::LinearQuest Options(Grid weight, Grid activation, int hadamard_dim) {
  spec::LinearQuest options;
  options.weight_grid = weight;
  options.activation_grid = activation;
  options.hadamard_dim = hadamard_dim;
  return options;
}

Matrix Of(const HostTensor& tensor) {
  const std::vector<double> flat = tensor.ToDoubles();
  const auto cols = static_cast<size_t>(tensor.view().dim(1));
  Matrix rows;
  for (size_t first = 0; first < flat.size(); first += cols) {
    rows.emplace_back(flat.begin() + static_cast<int64_t>(first), flat.begin() + static_cast<int64_t>(first + cols));
  }
  return rows;
}
std::vector<double> Flat(const Matrix& rows) {
  std::vector<double> flat;
  for (const std::vector<double>& row : rows) flat.insert(flat.end(), row.begin(), row.end());
  return flat;
}

// One layer, its inputs, and what a scheme makes of them.
struct Layer {
  Layer(const spec::LinearQuest& options, const HostTensor& x, const HostTensor& w, const HostTensor& dy,
        Stream& stream, bool accumulate = false)
      : scheme(MakeQuestScheme(options)),
        dtype(x.view().dtype()),
        site{.name = "layers.0.qkv",
             .rows = x.view().dim(0),
             .in = x.view().dim(1),
             .out = w.view().dim(0),
             .storage = dtype},
        y(HostTensor::Filled(dtype, {site.rows, site.out}, 9)),
        dx(HostTensor::Filled(dtype, {site.rows, site.in}, 9)),
        dw(HostTensor::Filled(DType::kF32, {site.out, site.in}, accumulate ? 2 : 9)),
        db(HostTensor::Filled(DType::kF32, {site.out}, accumulate ? 2 : 9)),
        bias(HostTensor::Normal(dtype, {site.out}, 77)) {
    const HostTensor workspace(DType::kU8, {scheme->WorkspaceBytes(site)});
    const LinearCall call{site};
    scheme->Forward(call, {.x = x, .w = w, .bias = bias, .y = y, .workspace = workspace}, stream);
    scheme->Backward(
        call,
        {.dy = dy, .x = x, .w = w, .dx = dx, .dw = dw, .db = db, .accumulate = accumulate, .workspace = workspace},
        stream);
  }
  std::vector<uint8_t> Bytes() const {
    std::vector<uint8_t> all;
    for (const HostTensor* tensor : {&y, &dx, &dw, &db}) {
      const std::vector<uint8_t> bytes = tensor->Bytes();
      all.insert(all.end(), bytes.begin(), bytes.end());
    }
    return all;
  }
  // y without the bias.
  Matrix Product() const {
    Matrix product = Of(y);
    const std::vector<double> b = bias.ToDoubles();
    for (std::vector<double>& row : product) {
      for (size_t o = 0; o < row.size(); ++o) row[o] -= b[o];
    }
    return product;
  }

  std::unique_ptr<LinearScheme> scheme;
  DType dtype;
  LinearSite site;
  HostTensor y, dx, dw, db, bias;
};

Matrix Rotated(const Matrix& x, int group) {
  if (group == 0) return x;
  Matrix y = x;
  for (size_t r = 0; r < x.size(); ++r) {
    for (size_t c = 0; c < x[r].size(); ++c) {
      const size_t first = c / static_cast<size_t>(group) * static_cast<size_t>(group);
      y[r][c] = 0;
      for (size_t k = 0; k < static_cast<size_t>(group); ++k) {
        y[r][c] += __builtin_popcountll((c - first) & k) % 2 == 0 ? x[r][first + k] : -x[r][first + k];
      }
      y[r][c] /= std::sqrt(group);
    }
  }
  return y;
}

struct Projected {
  Matrix values;
  std::vector<std::vector<bool>> passes;
};

// quest.md 2.3, in double, for INT grids of two bits and more.
Projected Project(const Matrix& v, Grid grid, int bits, GradientMask mask) {
  Projected p{v, {}};
  for (std::vector<double>& row : p.values) {
    p.passes.emplace_back(row.size(), true);
    if (grid == Grid::kNone) continue;
    double squares = 0;
    for (const double x : row) squares += x * x;
    const double rms = std::sqrt(squares / static_cast<double>(row.size()));
    const double clip = kQuestClip[bits] * rms + 1e-8;
    const double step = 2 * clip / ((1 << bits) - 1);
    for (size_t c = 0; c < row.size(); ++c) {
      const double x = row[c];
      row[c] = (std::nearbyint(std::clamp(x, -clip, clip) / step + 0.5) - 0.5) * step;
      if (mask == GradientMask::kTrust) p.passes.back()[c] = std::abs(row[c] - x) <= step / 2 * (1 + 1e-6);
      if (mask == GradientMask::kClip) p.passes.back()[c] = std::abs(x) <= clip;
    }
  }
  return p;
}

// y = x_hat w_hat^T, dx = (M o (dy w_hat)) H, dw = (M o (dy^T x_hat)) H.
struct Expected {
  Expected(const spec::LinearQuest& options, const Matrix& x, const Matrix& w, const Matrix& dy) {
    const bool is_weight_only = options.activation_grid == Grid::kNone && options.weight_grid != Grid::kNone;
    const int x_group = is_weight_only ? 0 : options.hadamard_dim;
    const Projected x_hat =
        Project(Rotated(x, x_group), options.activation_grid, options.activation_bits, options.gradient_mask);
    const Projected w_hat =
        Project(Rotated(w, options.hadamard_dim), options.weight_grid, options.weight_bits, options.gradient_mask);
    y.assign(x.size(), std::vector<double>(w.size()));
    Matrix dx_h(x.size(), std::vector<double>(w[0].size())), dw_h(w.size(), std::vector<double>(w[0].size()));
    for (size_t r = 0; r < x.size(); ++r) {
      for (size_t o = 0; o < w.size(); ++o) {
        for (size_t c = 0; c < w[0].size(); ++c) {
          y[r][o] += x_hat.values[r][c] * w_hat.values[o][c];
          if (x_hat.passes[r][c]) dx_h[r][c] += dy[r][o] * w_hat.values[o][c];
          if (w_hat.passes[o][c]) dw_h[o][c] += dy[r][o] * x_hat.values[r][c];
        }
      }
    }
    dx = Rotated(dx_h, x_group);
    dw = Rotated(dw_h, options.hadamard_dim);
  }
  Matrix y, dx, dw;
};

constexpr int64_t kRows = 11, kIn = 256, kOut = 24;

struct Inputs {
  explicit Inputs(DType dtype)
      : x(HostTensor::Normal(dtype, {kRows, kIn}, 1)),
        w(HostTensor::Normal(dtype, {kOut, kIn}, 2, 0.02)),
        dy(HostTensor::Normal(dtype, {kRows, kOut}, 3)) {}
  HostTensor x, w, dy;
};

HostTensor Identity(int64_t size) {
  HostTensor identity(DType::kF32, {size, size});
  for (int64_t i = 0; i < size; ++i) identity.as<float>()[i * size + i] = 1;
  return identity;
}

double Scale(const Matrix& values) {
  double largest = 0;
  for (const std::vector<double>& row : values) {
    for (const double value : row) largest = std::max(largest, std::abs(value));
  }
  return largest;
}

void ExpectEqual(const Layer& actual, const Expected& expected, double relative) {
  EXPECT_THAT(Flat(actual.Product()), AllNear(Flat(expected.y), {.absolute = relative * Scale(expected.y)}));
  EXPECT_THAT(actual.dx.ToDoubles(), AllNear(Flat(expected.dx), {.absolute = relative * Scale(expected.dx)}));
  EXPECT_THAT(actual.dw.ToDoubles(), AllNear(Flat(expected.dw), {.absolute = relative * Scale(expected.dw)}));
}

// quest.md 5.5: what is not quantized is rotated there and back.
TEST(QuestSchemeTest, WithoutGridsItIsTheDenseLayer) {
  Stream stream(2);
  const Inputs inputs(DType::kF32);
  for (const int group : {0, 16, 32, 64, 128}) {
    const Layer layer(Options(Grid::kNone, Grid::kNone, group), inputs.x, inputs.w, inputs.dy, stream);
    const Expected dense(Options(Grid::kNone, Grid::kNone, 0), Of(inputs.x), Of(inputs.w), Of(inputs.dy));
    ExpectEqual(layer, dense, 3e-6);
    if (group == 0) continue;
    // And it is another computation: not the same bits.
    const Layer plain(Options(Grid::kNone, Grid::kNone, 0), inputs.x, inputs.w, inputs.dy, stream);
    EXPECT_NE(layer.Bytes(), plain.Bytes());
  }
}

// The formulas in double. Fails if an operand is rotated by the wrong rule, if a mask or a rotation is left out, or if
// masks of x and w are swapped.
TEST(QuestSchemeTest, MatchesTheFormula) {
  Stream stream(2);
  const Inputs inputs(DType::kF32);
  for (const auto& [weight, activation] :
       {std::pair{Grid::kInt, Grid::kInt}, {Grid::kInt, Grid::kNone}, {Grid::kNone, Grid::kInt}}) {
    for (const int group : {0, 64, 128}) {
      for (const GradientMask mask : {GradientMask::kTrust, GradientMask::kClip, GradientMask::kStraightThrough}) {
        spec::LinearQuest options = Options(weight, activation, group);
        options.gradient_mask = mask;
        options.weight_bits = 3;
        options.activation_bits = 2;
        const Layer layer(options, inputs.x, inputs.w, inputs.dy, stream);
        ExpectEqual(layer, Expected(options, Of(inputs.x), Of(inputs.w), Of(inputs.dy)), 3e-6);
      }
    }
  }
}

TEST(QuestSchemeTest, AccumulatesTheWeightGradient) {
  Stream stream(2);
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const Inputs inputs(dtype);
    for (const auto& options : {Options(Grid::kInt, Grid::kInt, 128), Options(Grid::kInt, Grid::kInt, 0),
                                Options(Grid::kNone, Grid::kNone, 0)}) {
      const Layer once(options, inputs.x, inputs.w, inputs.dy, stream);
      const Layer added(options, inputs.x, inputs.w, inputs.dy, stream, /*accumulate=*/true);
      std::vector<double> expected = once.dw.ToDoubles();
      for (double& value : expected) value += 2;
      EXPECT_THAT(added.dw.ToDoubles(), AllNear(expected, {.absolute = 1e-5}));
      std::vector<double> expected_bias = once.db.ToDoubles();
      for (double& value : expected_bias) value += 2;
      EXPECT_THAT(added.db.ToDoubles(), AllNear(expected_bias, {.absolute = 1e-5}));
      EXPECT_EQ(added.dx.Bytes(), once.dx.Bytes());
    }
  }
}

// Values are rounded to bf16 before the products, nothing else is: to 2^-8 of the f32 layer of the same inputs.
TEST(QuestSchemeTest, BF16StorageIsNear) {
  Stream stream(2);
  const Inputs inputs(DType::kBF16);
  for (const int group : {0, 128}) {
    const spec::LinearQuest options = Options(Grid::kInt, Grid::kInt, group);
    const Layer layer(options, inputs.x, inputs.w, inputs.dy, stream);
    ExpectEqual(layer, Expected(options, Of(inputs.x), Of(inputs.w), Of(inputs.dy)), 0.01);
  }
}

// quest.md 5.2: with w = identity the layer gives x_hat rotated back, which is c x for a one-hot row.
TEST(QuestSchemeTest, OneHotRows) {
  const double expected[9] = {0, 0.7978845587, 1.4935346200, 0.8790292946, 0.8379768595, 0, 0, 0, 0.9902784868};
  Stream stream(1);
  HostTensor x = Identity(128);
  for (int64_t i = 0; i < 128 * 128; ++i) x.as<float>()[i] *= std::sqrt(128.0f);
  const HostTensor w = Identity(128), dy = HostTensor::Filled(DType::kF32, {128, 128}, 1);
  for (const int bits : {1, 2, 3, 4, 8}) {
    spec::LinearQuest options = Options(Grid::kNone, Grid::kInt, 128);
    options.activation_bits = bits;
    const Layer layer(options, x, w, dy, stream);
    Matrix scaled = Of(x);
    for (std::vector<double>& row : scaled) {
      for (double& value : row) value *= expected[bits];
    }
    EXPECT_THAT(Flat(layer.Product()), AllNear(Flat(scaled), {.absolute = 4e-5})) << bits;
    // All pass the mask, so the gradient is that of the dense layer.
    EXPECT_THAT(layer.dx.ToDoubles(), AllNear(std::vector<double>(128 * 128, 1), {.absolute = 1e-5})) << bits;
  }
}

// quest.md 5.3 and 5.4 as the layer shows them with w = identity and no rotation: y is x_hat, dx the mask.
TEST(QuestSchemeTest, LevelsErrorAndMaskedShare) {
  Stream stream(2);
  constexpr int64_t kRowCount = 192, kWide = 1024;
  const HostTensor x = HostTensor::Normal(DType::kF32, {kRowCount, kWide}, 5), w = Identity(kWide);
  const HostTensor dy = HostTensor::Filled(DType::kF32, {kRowCount, kWide}, 1);
  const double mse[9] = {0, 0.36338, 0.118846, 0.0374397, 0.0115429};
  for (int bits = 1; bits <= 4; ++bits) {
    spec::LinearQuest options = Options(Grid::kNone, Grid::kInt, 0);
    options.activation_bits = bits;
    const Layer layer(options, x, w, dy, stream);
    const Matrix y = layer.Product();
    const Matrix v = Of(x);
    double error = 0;
    double masked = 0;
    for (size_t r = 0; r < v.size(); ++r) {
      double squares = 0;
      for (const double value : v[r]) squares += value * value;
      std::set<int> levels;
      const double rms = std::sqrt(squares / static_cast<double>(kWide));
      const double step = 2 * kQuestClip[bits] * rms / ((1 << bits) - 1);
      for (size_t c = 0; c < v[r].size(); ++c) {
        error += (y[r][c] - v[r][c]) * (y[r][c] - v[r][c]) / rms / rms;
        const double level = y[r][c] / step + 0.5;
        EXPECT_NEAR(level, std::round(level), 1e-4);
        levels.insert(static_cast<int>(std::round(level)));
      }
      EXPECT_LE(levels.size(), size_t{1} << bits);
      EXPECT_GE(*levels.begin(), 1 - (1 << (bits - 1)));
      EXPECT_LE(*levels.rbegin(), 1 << (bits - 1));
    }
    for (const double value : layer.dx.ToDoubles()) masked += value == 0 ? 1 : 0;
    const double count = kRowCount * kWide;
    EXPECT_NEAR(error / count, mse[bits], 0.03 * mse[bits]) << bits;  // of the sample; exact: quest_test
    const double border = bits == 1 ? 1.30 * kQuestClip[1] : kQuestClip[bits] * (1 + 1.0 / ((1 << bits) - 1));
    const double share = std::erfc(border / std::sqrt(2.0));
    EXPECT_NEAR(masked / count, share, 3.5 * std::sqrt(share / count)) << bits;
  }
}

// quest.md 5.6: an entry of 10 rms in the rotated row gets no gradient under trust and clip, one just outside of the
// clip point none under clip alone; dx is H times the masked vector.
TEST(QuestSchemeTest, MasksGiveThreeGradients) {
  Stream stream(1);
  Matrix x_h(1, std::vector<double>(1024));
  for (size_t c = 0; c < 1024; ++c) x_h[0][c] = c % 2 == 0 ? -1 : 1;
  x_h[0][7] = 12;
  x_h[0][500] = -2.8;
  const HostTensor x = HostTensor::Of(DType::kF32, {1, 1024}, Flat(Rotated(x_h, 128)));
  const HostTensor w = HostTensor::Normal(DType::kF32, {16, 1024}, 8);
  const HostTensor dy = HostTensor::Filled(DType::kF32, {1, 16}, 1);
  std::set<std::vector<double>> gradients;
  for (const GradientMask mask : {GradientMask::kTrust, GradientMask::kClip, GradientMask::kStraightThrough}) {
    spec::LinearQuest options = Options(Grid::kNone, Grid::kInt, 128);
    options.gradient_mask = mask;
    const Layer layer(options, x, w, dy, stream);
    const Matrix dx_h = Rotated(Of(layer.dx), 128);
    EXPECT_EQ(std::abs(dx_h[0][7]) < 1e-4, mask != GradientMask::kStraightThrough);
    EXPECT_EQ(std::abs(dx_h[0][500]) < 1e-4, mask == GradientMask::kClip);
    EXPECT_GT(std::abs(dx_h[0][8]), 1e-3);
    ExpectEqual(layer, Expected(options, Of(x), Of(w), Of(dy)), 3e-6);
    gradients.insert(layer.dx.ToDoubles());
  }
  EXPECT_EQ(gradients.size(), 3u);
}

// The factors of the job's options arrive: a trust region of one rms lets more pass, an outer scale of one clip less.
TEST(QuestSchemeTest, FactorsWidenTheMask) {
  Stream stream(2);
  const HostTensor x = HostTensor::Normal(DType::kF32, {32, 256}, 5), w = Identity(256);
  const HostTensor dy = HostTensor::Filled(DType::kF32, {32, 256}, 1);
  const auto masked = [&](const spec::LinearQuest& options) {
    const Layer layer(options, x, w, dy, stream);
    const std::vector<double> dx = layer.dx.ToDoubles();
    return std::count(dx.begin(), dx.end(), 0.0);
  };
  spec::LinearQuest options = Options(Grid::kNone, Grid::kInt, 0);
  const int64_t usual = masked(options);
  options.trust_factor = 1;
  EXPECT_LT(masked(options), usual / 4);
  options = Options(Grid::kNone, Grid::kInt, 0);
  options.activation_bits = 1;
  const int64_t one_bit = masked(options);
  options.one_bit_outer_scale = 2;
  EXPECT_LT(masked(options), one_bit / 2);
}

// quest.md 5.8: with x = identity and weights alone the layer shows w_hat_h.
TEST(QuestSchemeTest, TwoFourWeightsKeepTwoOfFourPairs) {
  Stream stream(1);
  const HostTensor x = Identity(128), w = HostTensor::Normal(DType::kF32, {64, 128}, 4);
  const HostTensor dy = HostTensor::Normal(DType::kF32, {128, 64}, 3);
  spec::LinearQuest options = Options(Grid::kInt24, Grid::kNone, 128);
  options.weight_bits = 8;  // of INT, not of 2:4
  const Layer layer(options, x, w, dy, stream);
  Matrix y = Of(layer.y);
  const std::vector<double> bias = layer.bias.ToDoubles();
  const Matrix w_h = Rotated(Of(w), 128);
  for (size_t o = 0; o < 64; ++o) {
    std::set<int> levels;
    double squares = 0;
    for (const double value : w_h[o]) squares += value * value;
    const double step = 2 * kQuestClip[4] * std::sqrt(squares / 128) / 15;
    for (size_t first = 0; first < 128; first += 8) {
      int kept = 0;
      for (size_t c = first; c < first + 8; c += 2) {
        const double a = y[c][o] - bias[o];
        const double b = y[c + 1][o] - bias[o];
        const bool is_dropped = std::abs(a) < 1e-6 && std::abs(b) < 1e-6;
        EXPECT_TRUE(is_dropped || (std::abs(a) > step / 3 && std::abs(b) > step / 3)) << a << " " << b;
        kept += is_dropped ? 0 : 2;
      }
      EXPECT_EQ(kept, 4);
    }
  }
}

// quest.md 5.9.
TEST(QuestSchemeTest, ErrorOfAProductOfNormalOperands) {
  Stream stream(2);
  const HostTensor x = HostTensor::Normal(DType::kF32, {256, 512}, 1),
                   w = HostTensor::Normal(DType::kF32, {256, 512}, 2);
  const HostTensor dy = HostTensor::Filled(DType::kF32, {256, 256}, 1);
  for (const int group : {0, 128}) {
    const Layer exact(Options(Grid::kNone, Grid::kNone, 0), x, w, dy, stream);
    const Layer quantized(Options(Grid::kInt, Grid::kInt, group), x, w, dy, stream);
    const Matrix a = exact.Product();
    const Matrix b = quantized.Product();
    double error = 0;
    double square = 0;
    for (size_t r = 0; r < a.size(); ++r) {
      for (size_t o = 0; o < a[r].size(); ++o) {
        error += (a[r][o] - b[r][o]) * (a[r][o] - b[r][o]);
        square += a[r][o] * a[r][o];
      }
    }
    EXPECT_NEAR(error / square, 2 * 0.01154, 0.03 * 2 * 0.01154) << group;
  }
}

// The straight-through baseline: the largest entry of a row is kept, and no gradient is lost.
TEST(QuestSchemeTest, AbsMaxProjection) {
  Stream stream(1);
  const HostTensor x = HostTensor::Normal(DType::kF32, {16, 256}, 5), w = Identity(256);
  const HostTensor dy = HostTensor::Filled(DType::kF32, {16, 256}, 1);
  spec::LinearQuest options = Options(Grid::kNone, Grid::kInt, 0);
  options.projection = Projection::kAbsMax;
  const Layer layer(options, x, w, dy, stream);
  const Matrix y = layer.Product();
  const Matrix v = Of(x);
  for (size_t r = 0; r < 16; ++r) EXPECT_NEAR(Scale({y[r]}), Scale({v[r]}), 1e-5);
  for (const double value : layer.dx.ToDoubles()) EXPECT_EQ(value, 1);
}

// LSQ: both operands by the steps of the call, whose gradients are those of kernels/quant/lsq.h. Fails if the steps of
// weights and activations, or their scales, are mixed up.
TEST(QuestSchemeTest, LearnedSteps) {
  Stream stream(2);
  const Inputs inputs(DType::kF32);
  spec::LinearQuest options = Options(Grid::kInt, Grid::kInt, 0);
  options.projection = Projection::kLsq;
  options.gradient_mask = GradientMask::kClip;
  options.weight_bits = 3;
  const std::unique_ptr<LinearScheme> scheme = MakeQuestScheme(options);
  EXPECT_EQ(scheme->ParameterCount(), 2);
  EXPECT_EQ(MakeQuestScheme({})->ParameterCount(), 0);
  const LinearSite site{.name = "layers.0.qkv", .rows = kRows, .in = kIn, .out = kOut};
  const HostTensor workspace(DType::kU8, {scheme->WorkspaceBytes(site)});
  const HostTensor steps(DType::kF32, {2}), dsteps = HostTensor::Filled(DType::kF32, {2}, 9);
  const HostTensor y(DType::kF32, {kRows, kOut}), dx(DType::kF32, {kRows, kIn}), dw(DType::kF32, {kOut, kIn});
  const auto forward = [&](bool calibrates) {
    scheme->Forward({.site = site, .parameters = steps, .calibrates = calibrates},
                    {.x = inputs.x, .w = inputs.w, .y = y, .workspace = workspace}, stream);
  };
  forward(/*calibrates=*/true);
  const auto mean_magnitude = [](const HostTensor& tensor) {
    double sum = 0;
    for (const double value : tensor.ToDoubles()) sum += std::abs(value);
    return sum / static_cast<double>(tensor.view().size());
  };
  EXPECT_NEAR(steps.as<float>()[0], 2 * mean_magnitude(inputs.w) / std::sqrt(3.5), 1e-6);
  EXPECT_NEAR(steps.as<float>()[1], 2 * mean_magnitude(inputs.x) / std::sqrt(7.5), 1e-6);
  const std::vector<double> calibrated = y.ToDoubles();
  forward(/*calibrates=*/false);
  EXPECT_EQ(y.ToDoubles(), calibrated);
  scheme->Backward({.site = site, .parameters = steps},
                   {.dy = inputs.dy,
                    .x = inputs.x,
                    .w = inputs.w,
                    .dx = dx,
                    .dw = dw,
                    .dparameters = dsteps,
                    .workspace = workspace},
                   stream);

  // In double.
  struct Operand {
    Matrix values, derivative, passes;
  };
  const auto quantize = [](const Matrix& v, double step, double half) {
    Operand operand{v, v, v};
    for (size_t r = 0; r < v.size(); ++r) {
      for (size_t c = 0; c < v[r].size(); ++c) {
        const bool is_inside = std::abs(v[r][c]) <= half * step;
        const double value = std::clamp((std::nearbyint(v[r][c] / step + 0.5) - 0.5) * step, -half * step, half * step);
        operand.values[r][c] = value;
        operand.derivative[r][c] = is_inside ? (value - v[r][c]) / step : v[r][c] > 0 ? half : -half;
        operand.passes[r][c] = is_inside ? 1 : 0;
      }
    }
    return operand;
  };
  const Operand w = quantize(Of(inputs.w), steps.as<float>()[0], 3.5);
  const Operand x = quantize(Of(inputs.x), steps.as<float>()[1], 7.5);
  const Matrix dy = Of(inputs.dy);
  double expected[2] = {0, 0};
  Matrix expected_dx(kRows, std::vector<double>(kIn)), expected_y(kRows, std::vector<double>(kOut));
  for (size_t r = 0; r < kRows; ++r) {
    for (size_t o = 0; o < kOut; ++o) {
      for (size_t c = 0; c < kIn; ++c) {
        expected_y[r][o] += x.values[r][c] * w.values[o][c];
        expected_dx[r][c] += dy[r][o] * w.values[o][c] * x.passes[r][c];
        expected[0] += dy[r][o] * x.values[r][c] * w.derivative[o][c] / std::sqrt(3.5 * kOut * kIn);
        expected[1] += dy[r][o] * w.values[o][c] * x.derivative[r][c] / std::sqrt(7.5 * kIn);
      }
    }
  }
  EXPECT_THAT(calibrated, AllNear(Flat(expected_y), {.absolute = 3e-6 * Scale(expected_y)}));
  EXPECT_THAT(dx.ToDoubles(), AllNear(Flat(expected_dx), {.absolute = 3e-6 * Scale(expected_dx)}));
  EXPECT_NEAR(dsteps.as<float>()[0], expected[0], 1e-3 * std::abs(expected[0]) + 1e-5);
  EXPECT_NEAR(dsteps.as<float>()[1], expected[1], 1e-3 * std::abs(expected[1]) + 1e-5);
}

TEST(QuestSchemeTest, FewerRowsAreThoseRows) {
  Stream stream(1);
  const Inputs inputs(DType::kF32);
  const Layer whole(Options(Grid::kInt, Grid::kInt, 128), inputs.x, inputs.w, inputs.dy, stream);
  const HostTensor workspace(DType::kU8, {whole.scheme->WorkspaceBytes(whole.site)});
  const HostTensor y(DType::kF32, {1, kOut});
  whole.scheme->Forward(
      {whole.site},
      {.x = inputs.x.view().Slice(4, 1), .w = inputs.w, .bias = whole.bias, .y = y, .workspace = workspace}, stream);
  EXPECT_THAT(y.ToDoubles(), AllNear(Of(whole.y)[4], {.absolute = 1e-5}));
}

TEST(QuestSchemeTest, SameBitsForAnyThreadCount) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const Inputs inputs(dtype);
    kernels::testing::ExpectSameBitsForAnyThreadCount([&](Stream& stream) {
      return Layer(Options(Grid::kInt, Grid::kFp4, 64), inputs.x, inputs.w, inputs.dy, stream, true).Bytes();
    });
  }
}

}  // namespace
}  // namespace trainyard::linear
