#include "worker/linear/quartet2_scheme.h"

#include <algorithm>
#include <cmath>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/quant/abs_max.h"
#include "kernels/quant/nvfp4.h"
#include "kernels/testing/all_near.h"
#include "kernels/transform/hadamard.h"
#include "worker/linear/rotated_operand.h"
#include "worker/linear/testing/layer.h"

namespace trainyard::linear {
namespace {

using kernels::DType;
using kernels::NvBlock;
using kernels::NvFormat;
using kernels::NvMethod;
using kernels::Stream;
using kernels::testing::AllNear;
using kernels::testing::HostTensor;
using spec::LinearQuartet2;
using testing::Gradients;
using testing::Layer;
using testing::RelativeError;
using testing::Values;
using Backward = LinearQuartet2::BackwardQuantizer;
using Recipe = LinearQuartet2::Recipe;

constexpr LinearQuartet2 kNvidia{.recipe = Recipe::kNvidia, .four_over_six = false};
constexpr LinearQuartet2 kTetraJet{.recipe = Recipe::kTetraJetV2, .four_over_six = false};
constexpr LinearQuartet2 kSquareStochastic{.weight_block = LinearQuartet2::WeightBlock::k16x16,
                                           .backward_quantizer = Backward::kStochastic,
                                           .requantize_weight = false};
constexpr NvFormat kNearest{.method = NvMethod::kNearest};
constexpr NvFormat kStochastic{.method = NvMethod::kStochastic};

Values Transposed(const Values& x, int64_t rows, int64_t cols) {
  Values y(x.size());
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) y[static_cast<size_t>(c * rows + r)] = x[static_cast<size_t>(r * cols + c)];
  }
  return y;
}

// Rows of v in NVFP4: values times factor.
struct Coded {
  Values values;
  double factor;
  Values Represented() const {
    Values all = values;
    for (double& value : all) value *= factor;
    return all;
  }
};
Coded InNvfp4(const Values& v, int64_t cols, const NvFormat& format, kernels::PhiloxKey random = {}) {
  Stream stream(1);
  const HostTensor tensor = HostTensor::Of(DType::kF32, {static_cast<int64_t>(v.size()) / cols, cols}, v);
  const HostTensor amax(DType::kF32, {1}), scale(DType::kF32, {1});
  AbsMax({.x = tensor, .y = amax}, stream);
  NvQuantize({.x = tensor, .amax = amax, .format = format, .random = random, .tensor_scale = scale, .values = tensor},
             stream);
  return {tensor.ToDoubles(), scale.as<float>()[0]};
}

// One row of the table of quartet2.md 2.6 and 2.8.
struct Row {
  LinearQuartet2 options;
  NvFormat input, weight;  // of the forward
  NvFormat gradient, weight_again, input_again;
  int64_t group_for_input = 0;  // 0: the weights of the forward, not rotated
  int64_t group_for_weight = 0;
  bool is_input_unquantized = false;  // in dW
};

std::vector<Row> Table() {
  const NvFormat eden{.method = NvMethod::kMsEden}, square{.method = NvMethod::kNearest, .block = NvBlock::k16x16};
  const NvFormat square46{.block = NvBlock::k16x16}, eden128{.method = NvMethod::kMsEden, .eden_group = 128};
  const NvFormat clip{.method = NvMethod::kMsEden, .eden_clip = 5.5f};
  LinearQuartet2 nvidia46 = kNvidia;
  nvidia46.four_over_six = true;
  return {
      {{}, {}, {}, eden, eden, eden, 128, 128},
      {{.four_over_six = false, .hadamard_dim = 64}, kNearest, kNearest, eden, eden, eden, 64, 64},
      {{.eden_group = 128}, {}, {}, eden128, eden128, eden128, 128, 128},
      {{.hadamard_dim = 16, .eden_clip = 5.5}, {}, {}, clip, clip, clip, 16, 16},
      {{.backward_quantizer = Backward::kStochastic}, {}, {}, kStochastic, kStochastic, kStochastic, 128, 128},
      {{.backward_quantizer = Backward::kNearest}, {}, {}, kNearest, kNearest, kNearest, 128, 128},
      {kSquareStochastic, {}, square46, kStochastic, {}, kStochastic, 0, 128},
      {kNvidia, kNearest, square, kStochastic, {}, kNearest, 0, 16, true},
      {nvidia46, {}, square46, kStochastic, {}, kNearest, 0, 16, true},
      {kTetraJet, kNearest, kNearest, kStochastic, kStochastic, kStochastic, 32, 32},
  };
}

TEST(Quartet2SchemeTest, EveryOperandIsQuantizedAsTheTableSays) {
  const int64_t rows = 128;
  const int64_t in = 48;
  const int64_t out = 256;
  const Layer layer(rows, in, out);
  const LinearRandom random{.seed = 6, .step = 7, .micro_batch = 8};
  const LinearCall call{layer.site, random};
  const auto tolerance = kernels::testing::ToleranceForSum(DType::kF32, 512);
  // v H S in NVFP4, contracted over the last axis.
  const auto rounded = [&](const Values& v, int64_t cols, int64_t group, const NvFormat& format, ProductRole product,
                           OperandRole role) -> Coded {
    Stream stream(1);
    const HostTensor tensor = HostTensor::Of(DType::kF32, {static_cast<int64_t>(v.size()) / cols, cols}, v);
    if (group != 0) {
      const HostTensor signs(DType::kF32, {group});
      RandomSigns({.signs = signs, .random = call.Key(kernels::kRandomHadamardSign, product)}, stream);
      Hadamard({.x = tensor, .y = tensor, .group = group, .signs = signs}, stream);
    }
    return InNvfp4(tensor.ToDoubles(), cols, format, call.Key(kernels::kRandomQuantize, role));
  };
  int number = 0;
  for (const Row& row : Table()) {
    SCOPED_TRACE(number++);
    const auto scheme = MakeQuartet2Scheme(row.options);
    const Coded x = InNvfp4(layer.x.ToDoubles(), in, row.input), w = InNvfp4(layer.w.ToDoubles(), in, row.weight);
    EXPECT_THAT(layer.Forward(*scheme, random),
                AllNear(layer.DenseForward(x.Represented(), w.Represented()), tolerance));

    const Values dy = layer.dy.ToDoubles();
    const Coded dy_rows = rounded(dy, out, row.group_for_input, row.gradient, kInputGradient, kDyForInput);
    Coded w_cols{Transposed(w.values, out, in), 1};
    if (row.group_for_input != 0) {
      w_cols = rounded(w_cols.values, out, row.group_for_input, row.weight_again, kInputGradient, kWeightForInput);
    }
    const Coded dy_cols =
        rounded(Transposed(dy, rows, out), rows, row.group_for_weight, row.gradient, kWeightGradient, kDyForWeight);
    const Coded x_cols = rounded(Transposed(row.is_input_unquantized ? layer.x.ToDoubles() : x.values, rows, in), rows,
                                 row.group_for_weight, row.input_again, kWeightGradient, kInputForWeight);
    Values dx = testing::Product(dy_rows.values, {out, 1}, w_cols.values, {1, out}, rows, in, out);
    for (double& value : dx) value *= dy_rows.factor * w_cols.factor * w.factor;
    Values dw = testing::Product(dy_cols.values, {rows, 1}, x_cols.values, {1, rows}, out, in, rows);
    for (double& value : dw) value *= dy_cols.factor * x_cols.factor * (row.is_input_unquantized ? 1 : x.factor);
    const Gradients gradients = layer.Backward(*scheme, random);
    EXPECT_THAT(gradients.dx, AllNear(dx, tolerance));
    EXPECT_THAT(gradients.dw, AllNear(dw, tolerance));
    EXPECT_THAT(gradients.db, AllNear(layer.DenseBackward().db, tolerance));
  }
}

// quartet2.md 5.8: with quantizers that change nothing the rotations cancel.
TEST(Quartet2SchemeTest, RotationsCancel) {
  for (const LinearQuartet2& options :
       {LinearQuartet2{}, LinearQuartet2{.hadamard_dim = 16}, kSquareStochastic, kNvidia, kTetraJet}) {
    const auto scheme = MakeUnquantizedQuartet2Scheme(options);
    const Layer layer(128, 48, 256);
    constexpr double kF32Rounding = 1e-12;  // of a squared error
    EXPECT_LT(RelativeError(layer.Forward(*scheme), layer.DenseForward()), kF32Rounding);
    Gradients dense = layer.DenseBackward();
    const Gradients once = layer.Backward(*scheme, {.seed = 5});
    EXPECT_LT(RelativeError(once.dx, dense.dx), kF32Rounding);
    EXPECT_LT(RelativeError(once.dw, dense.dw), kF32Rounding);
    EXPECT_LT(RelativeError(once.db, dense.db), kF32Rounding);
    const Gradients twice = layer.Backward(*scheme, {.seed = 5}, 2);
    for (double& value : dense.dw) value *= 2;
    EXPECT_LT(RelativeError(twice.dw, dense.dw), kF32Rounding);
  }
}

// quartet2.md 5.8: bit-equal to the dense layer, in either storage.
TEST(Quartet2SchemeTest, DisabledIsTheDenseLayer) {
  const auto disabled = MakeQuartet2Scheme({.forward_enabled = false, .backward_enabled = false});
  const auto none = MakeQuartet2Scheme({.backward_quantizer = Backward::kNone, .forward_enabled = false});
  for (const DType storage : {DType::kF32, DType::kBF16}) {
    const Layer layer(20, 48, 12, storage);
    const Values dense = testing::AllResults(layer, *MakeFp32Scheme(), {}, 2);
    EXPECT_EQ(testing::AllResults(layer, *disabled, {}, 2), dense);
    EXPECT_EQ(testing::AllResults(layer, *none, {}, 2), dense);
  }
}

// "Backward off": dX = dY Wq, dW = dY^T Xq.
TEST(Quartet2SchemeTest, ForwardOnly) {
  const Layer layer(20, 48, 12);
  const Gradients expected = layer.DenseBackward(InNvfp4(layer.x.ToDoubles(), 48, {}).Represented(),
                                                 InNvfp4(layer.w.ToDoubles(), 48, {}).Represented());
  const Gradients gradients = layer.Backward(*MakeQuartet2Scheme({.backward_enabled = false}));
  const auto tolerance = kernels::testing::ToleranceForSum(DType::kF32, 64);
  EXPECT_THAT(gradients.dx, AllNear(expected.dx, tolerance));
  EXPECT_THAT(gradients.dw, AllNear(expected.dw, tolerance));
}

// quartet2.md 5.7: errors of products whose two operands are quantized: SR 4.8e-2, MS-EDEN 1.9e-2.
TEST(Quartet2SchemeTest, GradientErrors) {
  const Layer layer(512, 256, 512);
  const auto errors = [&](Backward quantizer) {
    const auto scheme = MakeQuartet2Scheme({.backward_quantizer = quantizer, .forward_enabled = false});
    const Gradients gradients = layer.Backward(*scheme, {.seed = 2}), dense = layer.Backward(*MakeFp32Scheme());
    return std::pair(RelativeError(gradients.dx, dense.dx), RelativeError(gradients.dw, dense.dw));
  };
  const auto [sr_dx, sr_dw] = errors(Backward::kStochastic);
  const auto [eden_dx, eden_dw] = errors(Backward::kMsEden);
  RecordProperty("stochastic", std::to_string(sr_dw));
  RecordProperty("ms_eden", std::to_string(eden_dw));
  for (const double error : {sr_dx, sr_dw}) EXPECT_NEAR(error, 4.8e-2, 0.05 * 4.8e-2);
  for (const double error : {eden_dx, eden_dw}) EXPECT_NEAR(error, 1.9e-2, 0.05 * 1.9e-2);
  EXPECT_GT(sr_dx, 2 * eden_dx);
  EXPECT_GT(sr_dw, 2 * eden_dw);
}

// quartet2.md 5.6 on the scheme: the mean of B backward passes against the exact products of the same forward operands
// falls as 1/B for MS-EDEN and SR; for nearest rounding it ends at its misalignment. Signs that are frozen or behind
// the Hadamard end at the error of one pass, one stream for both operands at a correlation of their errors.
TEST(Quartet2SchemeTest, MeanOfBackwardPasses) {
  const Layer layer(128, 32, 128);
  const auto errors = [&](const LinearQuartet2& options, int calls) {
    LinearQuartet2 exact = options;
    exact.backward_enabled = false;
    const Gradients expected = layer.Backward(*MakeQuartet2Scheme(exact));
    const Gradients mean = layer.MeanBackward(*MakeQuartet2Scheme(options), calls);
    return std::pair(RelativeError(mean.dx, expected.dx), RelativeError(mean.dw, expected.dw));
  };
  int number = 0;
  for (const LinearQuartet2& options :
       {LinearQuartet2{}, LinearQuartet2{.backward_quantizer = Backward::kStochastic}, kSquareStochastic}) {
    const auto [dx, dw] = errors(options, 4);
    const auto [dx_many, dw_many] = errors(options, 512);
    RecordProperty("backward_" + std::to_string(number) + "_of_4", std::to_string(dw));
    RecordProperty("backward_" + std::to_string(number++) + "_of_512", std::to_string(dw_many));
    EXPECT_NEAR(dx_many, dx / 128, 0.35 * dx / 128);
    EXPECT_NEAR(dw_many, dw / 128, 0.35 * dw / 128);
  }
  const auto [dx, dw] = errors({.backward_quantizer = Backward::kNearest}, 1);
  const auto [dx_many, dw_many] = errors({.backward_quantizer = Backward::kNearest}, 512);
  RecordProperty("nearest_1", std::to_string(dx));
  RecordProperty("nearest_512", std::to_string(dx_many));
  EXPECT_GT(dx_many, 3 * dx / 512);
  EXPECT_GT(dw_many, 3 * dw / 512);
}

TEST(Quartet2SchemeTest, RandomNumbersAreThoseOfTheCall) {
  const Layer layer(128, 32, 128);
  for (const LinearQuartet2& options : {LinearQuartet2{}, kNvidia, kTetraJet}) {
    const auto scheme = MakeQuartet2Scheme(options);
    const LinearRandom random{.seed = 1, .step = 2, .micro_batch = 3};
    const Gradients first = layer.Backward(*scheme, random);
    EXPECT_EQ(layer.Backward(*scheme, random).dw, first.dw);
    for (const LinearRandom& other : {LinearRandom{2, 2, 3}, {1, 3, 3}, {1, 2, 4}}) {
      EXPECT_NE(layer.Backward(*scheme, other).dw, first.dw);
      EXPECT_NE(layer.Backward(*scheme, other).dx, first.dx);
      EXPECT_EQ(layer.Forward(*scheme, other), layer.Forward(*scheme, random));  // nothing random in the forward
    }
  }
}

TEST(Quartet2SchemeTest, ThreadsRowsAndStorage) {
  for (const LinearQuartet2& options : {LinearQuartet2{}, kSquareStochastic, kNvidia, kTetraJet}) {
    const auto scheme = MakeQuartet2Scheme(options);
    for (const DType storage : {DType::kF32, DType::kBF16}) {
      const Layer layer(128, 80, 256, storage);
      const Values one = testing::AllResults(layer, *scheme, {.seed = 4}, 1);
      EXPECT_EQ(testing::AllResults(layer, *scheme, {.seed = 4}, 2), one);
      EXPECT_EQ(testing::AllResults(layer, *scheme, {.seed = 4}, 3), one);
      EXPECT_EQ(layer.Forward(*scheme, {}, 5).size(), 5 * 256u);  // evaluation: no groups of rows
    }
  }
}

}  // namespace
}  // namespace trainyard::linear
