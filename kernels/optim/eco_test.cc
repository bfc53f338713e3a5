#include "kernels/optim/eco.h"

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/optim/adamw.h"
#include "kernels/quant/number_format.h"
#include "kernels/testing/all_near.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/testing/op_case.h"
#include "kernels/testing/test_stream.h"

namespace trainyard::kernels {
namespace {

using testing::AllNear;
using testing::HostTensor;

struct Setting {
  std::string name;
  EcoForm form;
  DType format;
  int64_t span;  // of a matrix of kRows rows of kCols
};
constexpr int64_t kRows = 7, kCols = 1280, kCount = kRows * kCols;  // a row is 2.5 blocks; the whole more than a task

std::vector<Setting> Settings() {
  std::vector<Setting> settings;
  for (const auto& [form_name, form] : {std::pair<std::string, EcoForm>{"AdamW", EcoForm::kAdamW},
                                        {"Sgdm", EcoForm::kSgdm},
                                        {"SgdmExact", EcoForm::kSgdmExact}}) {
    for (const auto& [span_name, span] :
         {std::pair<std::string, int64_t>{"Tensor", kCount}, {"Row", kCols}, {"Group128", 128}, {"Group32", 32}}) {
      settings.push_back({form_name + "E4M3" + span_name, form, DType::kF8E4M3, span});
      settings.push_back({form_name + "INT4" + span_name, form, DType::kU8, span});
    }
  }
  return settings;
}

// The state of one matrix and its gradient.
struct Matrix {
  explicit Matrix(const Setting& setting, DType moment_dtype = DType::kF32)
      : form(setting.form),
        codes(setting.format, {setting.format == DType::kU8 ? kCount / 2 : kCount}),
        scales(setting.format == DType::kU8 ? DType::kF16 : DType::kF32, {kCount / setting.span}),
        grad(HostTensor::Normal(DType::kF32, {kCount}, 2, 0.1)),
        m(HostTensor::Normal(moment_dtype, {kCount}, 3, 0.1)),
        v(HostTensor::Normal(moment_dtype, {kCount}, 4, 0.01)),
        error(HostTensor::Normal(DType::kF32, {kCount}, 5, 1e-3)),
        statistics(HostTensor::Filled(DType::kF32, {EcoPieces(weights()), kEcoStatistics}, 77)),
        workspace(DType::kU8, {EcoWorkspaceBytes(weights())}) {
    std::vector<double> squares = v.ToDoubles();
    for (double& x : squares) x = std::abs(x);  // second moments are not negative
    v = HostTensor::Of(moment_dtype, {kCount}, squares);
    testing::TestStream stream(1);
    EncodeMatrix({.x = HostTensor::Normal(DType::kF32, {kCount}, 1), .matrix = weights()}, stream);
  }
  CodedMatrix weights() const { return {codes, scales}; }
  EcoArgs args() const {
    EcoArgs args{.form = form, .weights = weights(), .grad = grad, .m = m, .v = v, .error = error, .lr = 0.01f};
    args.weight_decay = 0.1f;
    args.step = 3;
    args.random = {.seed = 11, .step = 5, .tensor = 9};
    args.statistics = statistics;
    args.workspace = workspace;
    return args;
  }
  std::vector<double> Weights() const {
    testing::TestStream stream(1);
    const HostTensor y(DType::kF32, {kCount});
    DecodeMatrix({.matrix = weights(), .y = y}, stream);
    return y.ToDoubles();
  }
  // All but sums, whose order is the device's own.
  std::vector<uint8_t> StateBytes() const {
    std::vector<uint8_t> bytes = codes.Bytes();
    for (const HostTensor* tensor : {&scales, &m, &v, &error}) {
      const std::vector<uint8_t> more = tensor->Bytes();
      bytes.insert(bytes.end(), more.begin(), more.end());
    }
    return bytes;
  }
  std::vector<uint8_t> Bytes() const {
    std::vector<uint8_t> bytes = StateBytes();
    const std::vector<uint8_t> more = statistics.Bytes();
    bytes.insert(bytes.end(), more.begin(), more.end());
    return bytes;
  }
  double Statistic(EcoStatistic which) const {
    double sum = 0;
    for (int64_t i = which; i < statistics.view().size(); i += kEcoStatistics) sum += statistics.as<float>()[i];
    return sum;
  }

  EcoForm form;
  HostTensor codes, scales, grad, m, v, error, statistics, workspace;
};

class EcoTest : public ::testing::TestWithParam<Setting> {};
INSTANTIATE_TEST_SUITE_P(All, EcoTest, ::testing::ValuesIn(Settings()),
                         [](const auto& info) { return info.param.name; });

// w~ and the moments in double; the stored weight is a neighbour of w~ on a grid without clipping; and the momentum
// holds the error against exactly the weight that was stored.
TEST_P(EcoTest, StepMatchesDoubleReference) {
  for (const Rounding rounding : {Rounding::kNearestEven, Rounding::kStochastic}) {
    for (const bool is_corrected : {false, true}) {
      Matrix x(GetParam());
      EcoArgs args = x.args();
      args.rounding = rounding;
      args.decay_correction = is_corrected;
      args.grad_scale = 0.5f;
      const std::vector<double> before = x.Weights(), grad = x.grad.ToDoubles(), last_error = x.error.ToDoubles();
      std::vector<double> m = x.m.ToDoubles(), v = x.v.ToDoubles(), next = before;
      const std::vector<uint8_t> old_codes = x.codes.Bytes();
      testing::TestStream stream(2);
      Eco(args, stream);

      const double lr = args.lr, b1 = args.beta1, b2 = args.beta2, decay = args.weight_decay;
      const double c1 = 1 - b1 * b1 * b1, c2 = 1 - b2 * b2 * b2, corrected = is_corrected ? 1 - lr * decay : 1;
      const std::vector<double> after = x.Weights();
      std::vector<double> errors;
      double injection_squares = 0, momentum_squares = 0;
      for (size_t i = 0; i < kCount; ++i) {
        const double g = 0.5 * grad[i];
        m[i] = b1 * m[i] + (1 - b1) * g;
        double divisor = 1;
        if (args.form == EcoForm::kAdamW) {
          v[i] = b2 * v[i] + (1 - b2) * g * g;
          divisor = std::sqrt(v[i] / c2) + static_cast<double>(args.eps);
          next[i] = before[i] * (1 - lr * decay) - lr / c1 * m[i] / divisor;
        } else {
          next[i] = before[i] * (1 - lr * decay) - lr * m[i];
        }
        const double e = next[i] - after[i];
        errors.push_back(e);
        momentum_squares += m[i] * m[i];
        double injected = 0;
        if (args.form == EcoForm::kAdamW) injected = c1 / lr * (1 - 1 / b1) * corrected * divisor * e;
        if (args.form == EcoForm::kSgdm) injected = (1 - 1 / b1) / lr * corrected * e;
        if (args.form == EcoForm::kSgdmExact) injected = corrected / lr * (last_error[i] - e / b1);
        injection_squares += injected * injected;
        m[i] += injected;
      }
      // e is exact to f32 of w~, and comes multiplied with 1 / lr = 100.
      EXPECT_THAT(x.m.ToDoubles(), AllNear(m, {.absolute = 1e-4, .relative = 1e-4}));
      if (args.form == EcoForm::kAdamW) {
        EXPECT_THAT(x.v.ToDoubles(), AllNear(v, {.absolute = 1e-6, .relative = 1e-5}));
      }
      if (args.form == EcoForm::kSgdmExact) {
        EXPECT_THAT(x.error.ToDoubles(), AllNear(errors, {.absolute = 1e-6}));
      }
      const bool is_int4 = GetParam().format == DType::kU8;
      for (int64_t begin = 0; begin < kCount; begin += GetParam().span) {
        double amax = 0;
        for (int64_t i = begin; i < begin + GetParam().span; ++i) {
          amax = std::max(amax, std::abs(next[static_cast<size_t>(i)]));
        }
        for (int64_t i = begin; i < begin + GetParam().span; ++i) {
          const double value = next[static_cast<size_t>(i)];
          double spacing = amax / 7 * 1.001;  // the scale is f16 rounded up
          if (!is_int4) {
            const double scale = amax / 448;
            spacing = scale * std::exp2(std::max(std::floor(std::log2(std::abs(value) / scale)), -6.0) - 3);
          }
          const double bound = rounding == Rounding::kNearestEven ? spacing / 2 : spacing;
          ASSERT_LE(std::abs(errors[static_cast<size_t>(i)]), bound * (1 + 1e-4) + 1e-7) << i;
        }
      }
      // What the step tells of itself.
      int64_t changed = 0;
      const std::vector<uint8_t> codes = x.codes.Bytes();
      for (size_t i = 0; i < codes.size(); ++i) {
        if (is_int4) {
          changed += ((codes[i] ^ old_codes[i]) & 15) != 0;
          changed += ((codes[i] ^ old_codes[i]) >> 4) != 0;
        } else {
          changed += codes[i] != old_codes[i];
        }
      }
      EXPECT_GT(changed, is_int4 && rounding == Rounding::kNearestEven ? -1 : 0);  // INT4's steps are long
      EXPECT_EQ(x.Statistic(kEcoChanged), static_cast<double>(changed));
      EXPECT_EQ(x.Statistic(kEcoClipped), 0);
      EXPECT_NEAR(x.Statistic(kEcoInjectionSquares), injection_squares, 1e-3 * injection_squares);
      EXPECT_NEAR(x.Statistic(kEcoMomentumSquares), momentum_squares, 1e-4 * momentum_squares);
    }
  }
}

TEST_P(EcoTest, SameBitsForAnyThreads) {
  for (const DType moment_dtype : {DType::kF32, DType::kBF16}) {
    testing::ExpectSameBitsForAnyThreadCount([&](Stream& stream) {
      Matrix x(GetParam(), moment_dtype);
      EcoArgs args = x.args();
      for (int step = 0; step < 2; ++step, ++args.random.step, ++args.step) Eco(args, stream);
      return x.Bytes();
    });
  }
}

TEST_P(EcoTest, AllDevicesGiveTheBitsOfTheCpu) {
  for (const DType moment_dtype : {DType::kF32, DType::kBF16}) {
    testing::ExpectSameBitsAsOnCpu([&](Stream& stream) {
      Matrix x(GetParam(), moment_dtype);
      EcoArgs args = x.args();
      args.rounding = moment_dtype == DType::kF32 ? Rounding::kStochastic : Rounding::kNearestEven;
      args.weight_value = moment_dtype;
      args.first_element = 2;
      for (int step = 0; step < 3; ++step, ++args.random.step, ++args.step) Eco(args, stream);
      return x.StateBytes();
    });
  }
}

// At lr 0 w~ is the weight itself, so the codes can be told exactly: each from its own element's word.
TEST_P(EcoTest, AtLearningRateZeroOnlyTheGridMovesAndNothingIsInjected) {
  Matrix x(GetParam()), without(GetParam());
  const std::vector<double> before = x.Weights();
  EcoArgs args = x.args();
  args.lr = 0;
  testing::TestStream stream(1);
  Eco(args, stream);
  EXPECT_EQ(x.Statistic(kEcoInjectionSquares), 0);
  if (GetParam().form == EcoForm::kSgdmExact) {
    for (const double e : x.error.ToDoubles()) ASSERT_EQ(e, 0);  // was not injected: must not be paid back
  }
  const bool is_int4 = GetParam().format == DType::kU8;
  for (int64_t i = 0; i < kCount; ++i) {
    const int64_t begin = i / GetParam().span * GetParam().span;
    if (i % 97 != 0) continue;
    float amax = 0;
    for (int64_t j = begin; j < begin + GetParam().span; ++j) {
      amax = std::max(amax, std::abs(static_cast<float>(before[static_cast<size_t>(j)])));
    }
    const uint32_t word =
        RandomWord({.seed = 11, .step = 5, .purpose = kRandomRoundWeight, .tensor = 9}, static_cast<uint64_t>(i));
    if (is_int4) continue;
    const float scale = amax / 448.0f;
    ASSERT_EQ(x.scales.as<float>()[i / GetParam().span], scale);
    const float scaled = static_cast<float>(before[static_cast<size_t>(i)]) * (1 / scale);
    ASSERT_EQ(x.codes.as<Float8E4M3>()[i].bits, RoundStochastic<Float8E4M3>(scaled, word, Overflow::kSaturate).bits);
  }
  // The moments are those of a step without injection.
  args = without.args();
  args.inject = false;
  Eco(args, stream);
  EXPECT_EQ(x.m.Bytes(), without.m.Bytes());
  EXPECT_EQ(without.Statistic(kEcoInjectionSquares), 0);
}

// No codes: no error, and the whole is AdamW, moments in bf16 and its random words included.
TEST(Eco, WithoutCodesItIsAdamWBitForBit) {
  for (const DType moment_dtype : {DType::kF32, DType::kBF16}) {
    testing::TestStream stream(2);
    const HostTensor grad = HostTensor::Normal(DType::kF32, {kCount}, 2, 0.1);
    const HostTensor w = HostTensor::Normal(DType::kF32, {kCount}, 1), param = w.Copy();
    const HostTensor m(moment_dtype, {kCount}), v(moment_dtype, {kCount});
    const HostTensor adamw_m(moment_dtype, {kCount}), adamw_v(moment_dtype, {kCount});
    for (uint32_t step = 1; step <= 5; ++step) {
      const PhiloxKey key{.seed = 1, .step = step, .tensor = 2};
      const HostTensor factor = HostTensor::Of(DType::kF32, {1}, {0.25});
      Eco({.form = EcoForm::kAdamW,
           .weights = {w, {}},
           .grad = grad,
           .m = m,
           .v = v,
           .lr = 0.01f,
           .beta1 = 0.9f,
           .beta2 = 0.98f,
           .eps = 1e-9f,
           .weight_decay = 0.1f,
           .step = step,
           .gradient_factor = factor,
           .random = key},
          stream);
      AdamW({.param = param,
             .grad = grad,
             .m = adamw_m,
             .v = adamw_v,
             .lr = 0.01f,
             .beta1 = 0.9f,
             .beta2 = 0.98f,
             .eps = 1e-9f,
             .weight_decay = 0.1f,
             .step = step,
             .gradient_factor = factor,
             .rounding = Rounding::kStochastic,
             .random = key},
            stream);
    }
    EXPECT_EQ(w.Bytes(), param.Bytes());
    EXPECT_EQ(m.Bytes(), adamw_m.Bytes());
    EXPECT_EQ(v.Bytes(), adamw_v.Bytes());
  }
}

// Two halves, each told where it begins, as ranks that share the rows would do it.
TEST(Eco, ShardsOfRowsHaveTheBitsOfTheWhole) {
  for (const DType moment_dtype : {DType::kF32, DType::kBF16}) {
    const Setting setting{"", EcoForm::kAdamW, DType::kF8E4M3, kCols};
    testing::TestStream stream(1);
    Matrix whole(setting, moment_dtype), cut(setting, moment_dtype);
    Eco(whole.args(), stream);
    for (const int64_t row : {int64_t{0}, int64_t{3}}) {
      const int64_t rows = row == 0 ? 3 : kRows - 3;
      EcoArgs part = cut.args();
      part.statistics = {};
      part.weights = {part.weights.codes.Slice(row * kCols, rows * kCols), part.weights.scales.Slice(row, rows)};
      for (TensorView* view : {&part.grad, &part.m, &part.v}) *view = view->Slice(row * kCols, rows * kCols);
      part.first_element = row * kCols;
      Eco(part, stream);
    }
    EXPECT_EQ(cut.codes.Bytes(), whole.codes.Bytes());
    EXPECT_EQ(cut.scales.Bytes(), whole.scales.Bytes());
    EXPECT_EQ(cut.m.Bytes(), whole.m.Bytes());
  }
}

// A network of bf16 reads code * scale rounded to bf16, and that is what the error is measured from (eco.md, pitfall
// 5).
TEST(Eco, ErrorIsAgainstTheWeightThatTheNetworkReads) {
  testing::TestStream stream(1);
  Matrix x({"", EcoForm::kSgdm, DType::kF8E4M3, kCols});
  const auto read = [&] {
    const HostTensor y(DType::kBF16, {kCount});
    DecodeMatrix({.matrix = x.weights(), .y = y}, stream);
    return y.ToDoubles();
  };
  const std::vector<double> before = read();
  for (HostTensor* tensor : {&x.grad, &x.m}) *tensor = HostTensor(DType::kF32, {kCount});
  EcoArgs args = x.args();
  args.weight_value = DType::kBF16;
  Eco(args, stream);
  const std::vector<double> after = read();
  std::vector<double> m;
  for (size_t i = 0; i < kCount; ++i) {
    m.push_back((before[i] * (1 - 0.01 * 0.1) - after[i]) * (1 - 1 / 0.9) / 0.01);
  }
  EXPECT_THAT(x.m.ToDoubles(), AllNear(m, {.absolute = 1e-5, .relative = 1e-3}));
}

// Steps far below half a spacing: without the injection nearest rounding never moves a code.
TEST(Eco, SmallStepsMoveCodesOnlyWithTheInjection) {
  testing::TestStream stream(1);
  for (const bool inject : {true, false}) {
    Matrix x({"", EcoForm::kAdamW, DType::kF8E4M3, kCols});
    for (HostTensor* tensor : {&x.m, &x.v}) *tensor = HostTensor(DType::kF32, {kCount});
    const std::vector<uint8_t> start = x.codes.Bytes();
    EcoArgs args = x.args();
    args.rounding = Rounding::kNearestEven;
    args.weight_decay = 0;
    args.inject = inject;
    args.lr = 1e-3f;
    // The largest of each row stays, and with it the scale.
    const std::vector<double> weights = x.Weights();
    for (int64_t row = 0; row < kRows; ++row) {
      int64_t largest = row * kCols;
      for (int64_t i = largest; i < (row + 1) * kCols; ++i) {
        if (std::abs(weights[static_cast<size_t>(i)]) > std::abs(weights[static_cast<size_t>(largest)])) largest = i;
      }
      x.grad.as<float>()[largest] = 0;
    }
    for (args.step = 1; args.step <= 600; ++args.step) Eco(args, stream);
    int64_t moved = 0;
    const std::vector<uint8_t> codes = x.codes.Bytes();
    for (size_t i = 0; i < codes.size(); ++i) moved += codes[i] != start[i];
    if (inject) {
      EXPECT_GT(moved, kCount / 2);
    } else {
      EXPECT_LT(moved, kCount / 10);
    }
    std::printf("%s injection: %ld of %ld codes moved\n", inject ? "with" : "without", static_cast<long>(moved),
                static_cast<long>(kCount));
  }
}

}  // namespace
}  // namespace trainyard::kernels
