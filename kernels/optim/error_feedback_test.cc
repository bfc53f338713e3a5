#include "kernels/optim/error_feedback.h"

#include <algorithm>
#include <cmath>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/testing/all_near.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/testing/op_case.h"
#include "kernels/testing/test_stream.h"

namespace trainyard::kernels {
namespace {

using testing::AllNear;
using testing::HostTensor;
using testing::ToleranceFor;
using Values = std::vector<double>;

struct Store {
  Store(int bits, int64_t rows, int64_t cols)
      : bits(bits),
        codes(bits == 32 ? DType::kF32 : DType::kU8, {rows, bits == 32 ? cols : FeedbackRowBytes(bits, cols)}),
        min(DType::kF32, {rows}),
        max(DType::kF32, {rows}) {}
  FeedbackStore store() const {
    if (bits == 32) return {.bits = 32, .codes = codes};
    return {.bits = bits, .codes = codes, .min = min, .max = max};
  }
  std::vector<uint8_t> Bytes() const {
    std::vector<uint8_t> bytes = codes.Bytes();
    for (const HostTensor* extremes : {&min, &max}) {
      const std::vector<uint8_t> more = extremes->Bytes();
      bytes.insert(bytes.end(), more.begin(), more.end());
    }
    return bytes;
  }

  int bits;
  HostTensor codes, min, max;
};

// Quantizes x as it is: the product that is taken from it is 0.
void Quantize(const HostTensor& x, const Store& store, Stream& stream) {
  const HostTensor left(DType::kF32, {x.view().dim(0), 1});
  const HostTensor right(DType::kF32, {1, x.view().dim(1)});
  KeepResidual({.gradient = x, .selected = {.x = left, .y = right}, .store = store.store()}, stream);
}

Values Decoded(const Store& store, int64_t rows, int64_t cols, Stream& stream) {
  const HostTensor y(DType::kF32, {rows, cols});
  AddFeedback({.gradient = y, .store = store.store()}, stream);
  return y.ToDoubles();
}

struct Case {
  int bits;
  int64_t rows, cols;
};

class ErrorFeedbackTest : public ::testing::TestWithParam<Case> {
 protected:
  const int bits_ = GetParam().bits;
  const int64_t rows_ = GetParam().rows, cols_ = GetParam().cols;
  const HostTensor x_ = HostTensor::Normal(DType::kF32, {rows_, cols_}, 1);
};

// At most half a unit a value; the released 8-bit class has 16 levels and fails by a factor of 17.
TEST_P(ErrorFeedbackTest, RoundTripIsWithinHalfAUnitOfTheRow) {
  testing::TestStream stream(2);
  const Store store(bits_, rows_, cols_);
  Quantize(x_, store, stream);
  const Values x = x_.ToDoubles();
  const Values decoded = Decoded(store, rows_, cols_, stream);
  for (int64_t row = 0; row < rows_; ++row) {
    const auto begin = x.begin() + row * cols_;
    const auto [min, max] = std::minmax_element(begin, begin + cols_);
    const double unit = bits_ == 32 ? 0 : (*max - *min) / ((1 << bits_) - 1);
    for (int64_t j = row * cols_; j < (row + 1) * cols_; ++j) {
      const size_t at = static_cast<size_t>(j);
      ASSERT_LE(std::abs(decoded[at] - x[at]), unit / 2 + 1e-6) << "row " << row;
    }
  }
}

TEST_P(ErrorFeedbackTest, AddsToTheClippedGradient) {
  testing::TestStream stream(2);
  const Store store(bits_, rows_, cols_);
  Quantize(x_, store, stream);
  Values expected = Decoded(store, rows_, cols_, stream);
  const HostTensor gradient = HostTensor::Normal(DType::kF32, {rows_, cols_}, 2);
  const Values g = gradient.ToDoubles();
  for (size_t i = 0; i < g.size(); ++i) expected[i] += 0.25 * g[i];
  const HostTensor factor = HostTensor::Of(DType::kF32, {1}, {0.25});
  AddFeedback({.gradient = gradient, .store = store.store(), .factor = factor}, stream);
  EXPECT_THAT(gradient.ToDoubles(), AllNear(expected, ToleranceFor(DType::kF32)));
}

TEST_P(ErrorFeedbackTest, ResidualIsWhatTheProductLeaves) {
  testing::TestStream stream(2);
  const HostTensor left = HostTensor::Normal(DType::kF32, {rows_, 3}, 3);
  const HostTensor right = HostTensor::Normal(DType::kF32, {3, cols_}, 4);
  Values expected = x_.ToDoubles();
  for (int64_t i = 0; i < rows_; ++i) {
    for (int64_t j = 0; j < cols_; ++j) {
      for (int64_t k = 0; k < 3; ++k) {
        expected[static_cast<size_t>(i * cols_ + j)] -= 0.5 * static_cast<double>(left.as<float>()[i * 3 + k]) *
                                                        static_cast<double>(right.as<float>()[k * cols_ + j]);
      }
    }
  }
  const HostTensor gradient = x_.Copy();
  const Store store(bits_, rows_, cols_), other(bits_, rows_, cols_);
  KeepResidual({.gradient = gradient, .selected = {.x = left, .y = right}, .share = 0.5f, .store = store.store()},
               stream);
  EXPECT_THAT(gradient.ToDoubles(), AllNear(expected, ToleranceFor(DType::kF32)));
  Quantize(gradient, other, stream);  // what was stored is that, rounded
  EXPECT_EQ(store.Bytes(), other.Bytes());
}

// The product is 0, so that no sum of products shows.
TEST_P(ErrorFeedbackTest, AllDevicesGiveTheCodesOfTheCpu) {
  testing::ExpectSameBitsAsOnCpu([&](Stream& stream) {
    const Store store(bits_, rows_, cols_);
    const HostTensor gradient = x_.Copy();
    Quantize(gradient, store, stream);
    const HostTensor next = HostTensor::Normal(DType::kF32, {rows_, cols_}, 2);
    const HostTensor factor = HostTensor::Of(DType::kF32, {1}, {0.3});
    AddFeedback({.gradient = next, .store = store.store(), .factor = factor}, stream);
    std::vector<uint8_t> bytes = store.Bytes();
    const std::vector<uint8_t> more = next.Bytes();
    bytes.insert(bytes.end(), more.begin(), more.end());
    return bytes;
  });
}

TEST_P(ErrorFeedbackTest, SameBitsForAnyThreadCount) {
  testing::ExpectSameBitsForAnyThreadCount([&](Stream& stream) {
    const Store store(bits_, rows_, cols_);
    const HostTensor gradient = x_.Copy();
    Quantize(gradient, store, stream);
    return store.Bytes();
  });
}

INSTANTIATE_TEST_SUITE_P(All, ErrorFeedbackTest,
                         ::testing::Values(Case{8, 1, 1}, Case{8, 5, 37}, Case{8, 400, 530}, Case{4, 1, 1},
                                           Case{4, 7, 33}, Case{4, 400, 1025}, Case{32, 5, 37}, Case{32, 400, 130}),
                         [](const auto& info) {
                           return "bits" + std::to_string(info.param.bits) + "_" + std::to_string(info.param.rows) +
                                  "x" + std::to_string(info.param.cols);
                         });

// Values on the grid come back exactly and their codes can be told: the released decoder puts all high halves before
// all low ones.
TEST(ErrorFeedbackCodes, FourBitsLieInPairsEvenColumnLow) {
  testing::TestStream stream(1);
  const HostTensor x = HostTensor::Of(DType::kF32, {2, 5}, {0, 15, 3, 9, 12, -1, 0, 0.5, 6.5, 0.25});
  const Store store(4, 2, 5);
  Quantize(x, store, stream);
  EXPECT_THAT(store.codes.Bytes(), ::testing::ElementsAre(0xF0, 0x93, 0x0C, 0x20, 0xF3, 0x03));
  EXPECT_THAT(Decoded(store, 2, 5, stream), AllNear({0, 15, 3, 9, 12, -1, 0, 0.5, 6.5, 0.5}, {.absolute = 1e-6}));
}

TEST(ErrorFeedbackCodes, EightBitsUseAllLevels) {
  testing::TestStream stream(1);
  Values values(256);
  for (size_t i = 0; i < 256; ++i) values[i] = static_cast<double>(i) - 100;
  const HostTensor x = HostTensor::Of(DType::kF32, {1, 256}, values);
  const Store store(8, 1, 256);
  Quantize(x, store, stream);
  for (int i = 0; i < 256; ++i) EXPECT_EQ(store.codes.as<uint8_t>()[i], i);
}

// The release divides by zero here.
TEST(ErrorFeedbackCodes, ConstantRowIsExact) {
  testing::TestStream stream(1);
  for (const int bits : {4, 8}) {
    const HostTensor x = HostTensor::Of(DType::kF32, {2, 3}, {0.1, 0.1, 0.1, -3e-42, -3e-42, -3e-42});
    const Store store(bits, 2, 3);
    const Values expected = x.ToDoubles();
    Quantize(x, store, stream);
    EXPECT_EQ(Decoded(store, 2, 3, stream), expected);
  }
}

// The error of values spread evenly is uniform over a unit: its mean square is u^2 / 12.
TEST(ErrorFeedbackCodes, MeanSquareErrorIsATwelfthOfTheUnit) {
  testing::TestStream stream(1);
  constexpr int64_t kCount = 100000;
  Values values(kCount);
  for (size_t i = 0; i < kCount; ++i) values[i] = static_cast<double>(i) / kCount;
  for (const int bits : {4, 8}) {
    const HostTensor x = HostTensor::Of(DType::kF32, {1, kCount}, values);
    const Store store(bits, 1, kCount);
    Quantize(x, store, stream);
    const Values decoded = Decoded(store, 1, kCount, stream);
    double sum = 0;
    for (size_t i = 0; i < kCount; ++i) sum += (decoded[i] - values[i]) * (decoded[i] - values[i]);
    const double unit = 1.0 / ((1 << bits) - 1);
    EXPECT_NEAR(sum / kCount / (unit * unit / 12), 1, 0.02);
  }
}

}  // namespace
}  // namespace trainyard::kernels
