#include "kernels/norm/channel_norm.h"

#include <cmath>

#include "gtest/gtest.h"
#include "kernels/testing/all_near.h"
#include "kernels/testing/finite_difference.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/testing/op_case.h"
#include "kernels/testing/test_stream.h"

namespace trainyard::kernels {
namespace {

using testing::AllNear;
using testing::HostTensor;
using Values = std::vector<double>;

struct NormCase {
  const char* name;
  ChannelNormKind kind;
  int64_t batch, channels, pixels, groups;
};

class ChannelNormTest : public ::testing::TestWithParam<NormCase> {
 protected:
  // Which set element i belongs to.
  size_t SetOf(size_t i) const {
    const NormCase& c = GetParam();
    const auto row = static_cast<int64_t>(i) / c.pixels;
    const int64_t set = c.kind == ChannelNormKind::kBatch ? row % c.channels : row / (c.channels / c.groups);
    return static_cast<size_t>(set);
  }
  size_t ChannelOf(size_t i) const {
    return static_cast<size_t>(static_cast<int64_t>(i) / GetParam().pixels % GetParam().channels);
  }
  Values Forward(const Values& x, const Values& w, const Values& b) const {
    Values count(static_cast<size_t>(sets_)), mean(count), variance(count), y(x);
    for (size_t i = 0; i < x.size(); ++i) count[SetOf(i)] += 1;
    for (size_t i = 0; i < x.size(); ++i) mean[SetOf(i)] += x[i] / count[SetOf(i)];
    for (size_t i = 0; i < x.size(); ++i) variance[SetOf(i)] += std::pow(x[i] - mean[SetOf(i)], 2) / count[SetOf(i)];
    for (size_t i = 0; i < x.size(); ++i) {
      y[i] = (x[i] - mean[SetOf(i)]) / std::sqrt(variance[SetOf(i)] + 1e-3) * w[ChannelOf(i)] + b[ChannelOf(i)];
    }
    return y;
  }
  void RunForward(const HostTensor& y, Stream& stream) {
    ChannelNormForward({.kind = GetParam().kind,
                        .groups = GetParam().groups,
                        .x = x_,
                        .w = w_,
                        .b = b_,
                        .y = y,
                        .mean = mean_,
                        .inv_std = inv_std_,
                        .eps = 1e-3f},
                       stream);
  }
  void RunBackward(const HostTensor& dy, const HostTensor& dx, const HostTensor& dw, const HostTensor& db,
                   bool accumulate, Stream& stream) {
    const HostTensor workspace(DType::kU8, {ChannelNormBackwardWorkspaceBytes(GetParam().batch, GetParam().channels)});
    ChannelNormBackward({.kind = GetParam().kind,
                         .groups = GetParam().groups,
                         .x = x_,
                         .w = w_,
                         .mean = mean_,
                         .inv_std = inv_std_,
                         .dy = dy,
                         .dx = dx,
                         .accumulate = accumulate,
                         .dw = dw,
                         .db = db,
                         .accumulate_weights = accumulate,
                         .workspace = workspace},
                        stream);
  }

  const std::vector<int64_t> shape_ = {GetParam().batch, GetParam().channels, GetParam().pixels};
  const int64_t channels_ = GetParam().channels;
  const int64_t sets_ =
      ChannelNormStatisticsCount(GetParam().kind, GetParam().groups, GetParam().batch, GetParam().channels);
  const HostTensor x_ = HostTensor::Normal(DType::kF32, shape_, 1, 2.0);
  const HostTensor w_ = HostTensor::Normal(DType::kF32, {channels_}, 2);
  const HostTensor b_ = HostTensor::Normal(DType::kF32, {channels_}, 3);
  const HostTensor dy_ = HostTensor::Normal(DType::kF32, shape_, 4);
  const HostTensor start_ = HostTensor::Normal(DType::kF32, shape_, 5);
  const HostTensor mean_ = HostTensor(DType::kF32, {sets_});
  const HostTensor inv_std_ = HostTensor(DType::kF32, {sets_});
  // Normalising few values multiplies the error of their small deviations.
  const testing::Tolerance tolerance_ = {.absolute = 5e-5, .relative = 5e-5};
  testing::TestStream stream_{2};
};

TEST_P(ChannelNormTest, ForwardMatchesDoubleReference) {
  const Values expected = Forward(x_.ToDoubles(), w_.ToDoubles(), b_.ToDoubles());
  const HostTensor y = HostTensor::Filled(DType::kF32, shape_, 99);
  RunForward(y, stream_);
  EXPECT_THAT(y.ToDoubles(), AllNear(expected, tolerance_));
}

TEST_P(ChannelNormTest, BackwardMatchesFiniteDifferences) {
  const HostTensor y(DType::kF32, shape_);
  RunForward(y, stream_);
  Values x = x_.ToDoubles(), w = w_.ToDoubles(), b = b_.ToDoubles();
  const Values dy = dy_.ToDoubles();
  const auto loss = [&] { return testing::Dot(dy, Forward(x, w, b)); };
  const Values dx = testing::FiniteDifferences(x, loss);
  const Values dw = testing::FiniteDifferences(w, loss);
  const Values db = testing::FiniteDifferences(b, loss);
  for (const bool accumulate : {false, true}) {
    const HostTensor got_dx = accumulate ? start_.Copy() : dy_.Copy();  // in place where it may be
    const HostTensor got_dw = w_.Copy();
    const HostTensor got_db = b_.Copy();
    RunBackward(accumulate ? dy_ : got_dx, got_dx, got_dw, got_db, accumulate, stream_);
    const auto expected = [&](Values gradient, const HostTensor& start) {
      const Values before = start.ToDoubles();
      for (size_t i = 0; accumulate && i < gradient.size(); ++i) gradient[i] += before[i];
      return gradient;
    };
    EXPECT_THAT(got_dx.ToDoubles(), AllNear(expected(dx, start_), tolerance_));
    EXPECT_THAT(got_dw.ToDoubles(), AllNear(expected(dw, w_), tolerance_));
    EXPECT_THAT(got_db.ToDoubles(), AllNear(expected(db, b_), tolerance_));
  }
}

TEST_P(ChannelNormTest, SameBitsForAnyThreadCount) {
  testing::ExpectSameBitsForAnyThreadCount([&](Stream& stream) {
    const HostTensor dx(DType::kF32, shape_);
    const HostTensor dw(DType::kF32, {channels_});
    const HostTensor db(DType::kF32, {channels_});
    RunForward(dx, stream);
    RunBackward(dy_, dx, dw, db, false, stream);
    std::vector<uint8_t> bytes = dx.Bytes();
    for (const HostTensor* tensor : {&dw, &db}) {
      const std::vector<uint8_t> more = tensor->Bytes();
      bytes.insert(bytes.end(), more.begin(), more.end());
    }
    return bytes;
  });
}

INSTANTIATE_TEST_SUITE_P(All, ChannelNormTest,
                         ::testing::Values(NormCase{"group_one_value", ChannelNormKind::kGroup, 1, 1, 1, 1},
                                           NormCase{"group", ChannelNormKind::kGroup, 3, 4, 5, 1},
                                           NormCase{"group_features", ChannelNormKind::kGroup, 2, 33, 1, 1},
                                           NormCase{"two_groups", ChannelNormKind::kGroup, 3, 6, 7, 2},
                                           NormCase{"more_rows_than_warps", ChannelNormKind::kGroup, 1, 40, 35, 2},
                                           NormCase{"batch_one", ChannelNormKind::kBatch, 1, 2, 9, 1},
                                           NormCase{"batch", ChannelNormKind::kBatch, 3, 4, 16, 1},
                                           NormCase{"batch_features", ChannelNormKind::kBatch, 7, 5, 1, 1}),
                         [](const auto& info) { return info.param.name; });

// The variance of mean-square minus square-of-mean loses all digits here.
TEST(ChannelNormEdgeTest, LargeMeanSmallDeviation) {
  testing::TestStream stream(1);
  const HostTensor x = HostTensor::Of(DType::kF32, {1, 1, 4}, {10000, 10001, 10002, 10003});
  const HostTensor w = HostTensor::Filled(DType::kF32, {1}, 1);
  const HostTensor b(DType::kF32, {1});
  const HostTensor y(DType::kF32, {1, 1, 4});
  const HostTensor mean(DType::kF32, {1});
  const HostTensor inv_std(DType::kF32, {1});
  ChannelNormForward({.x = x, .w = w, .b = b, .y = y, .mean = mean, .inv_std = inv_std, .eps = 0}, stream);
  const double s = 1 / std::sqrt(1.25);
  EXPECT_THAT(y.ToDoubles(), AllNear({-1.5 * s, -0.5 * s, 0.5 * s, 1.5 * s}, {.absolute = 2e-6}));
}

}  // namespace
}  // namespace trainyard::kernels
