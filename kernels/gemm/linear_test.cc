#include "kernels/gemm/linear.h"

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
using testing::OpCase;
using Values = std::vector<double>;

Values Forward(const Values& x, const Values& w, const Values& bias) {
  const size_t out = bias.size();
  const size_t in = w.size() / out;
  const size_t rows = x.size() / in;
  Values y(rows * out);
  for (size_t r = 0; r < rows; ++r) {
    for (size_t o = 0; o < out; ++o) {
      y[r * out + o] = bias[o];
      for (size_t i = 0; i < in; ++i) y[r * out + o] += x[r * in + i] * w[o * in + i];
    }
  }
  return y;
}

class LinearTest : public ::testing::TestWithParam<OpCase> {
 protected:
  const DType dtype_ = GetParam().dtype;
  const int64_t rows_ = GetParam().dim(0);
  const int64_t in_ = GetParam().dim(1);
  const int64_t out_ = GetParam().dim(2);
  const HostTensor x_ = HostTensor::Normal(dtype_, {rows_, in_}, 1);
  const HostTensor w_ = HostTensor::Normal(dtype_, {out_, in_}, 2);
  const HostTensor bias_ = HostTensor::Normal(dtype_, {out_}, 3);
  const HostTensor dy_ = HostTensor::Normal(dtype_, {rows_, out_}, 4);
  const HostTensor workspace_{DType::kU8, {LinearWorkspaceBytes(dtype_, rows_, in_, out_)}};
  const testing::Tolerance tolerance_ = testing::ToleranceForSum(dtype_, rows_ + in_ + out_);
  testing::TestStream stream_{2};
};

TEST_P(LinearTest, ForwardMatchesDoubleReference) {
  const HostTensor y = HostTensor::Filled(dtype_, {rows_, out_}, 99);
  LinearForward({.x = x_, .w = w_, .bias = bias_, .y = y, .workspace = workspace_}, stream_);
  EXPECT_THAT(y.ToDoubles(), AllNear(Forward(x_.ToDoubles(), w_.ToDoubles(), bias_.ToDoubles()), tolerance_));
}

TEST_P(LinearTest, BackwardMatchesFiniteDifferences) {
  Values x = x_.ToDoubles();
  Values w = w_.ToDoubles();
  Values bias = bias_.ToDoubles();
  const Values dy = dy_.ToDoubles();
  const auto loss = [&] { return testing::Dot(dy, Forward(x, w, bias)); };
  for (const bool accumulate : {false, true}) {
    // Gradients kept in f32 as well as in the storage dtype.
    for (const DType gradient_dtype : {dtype_, DType::kF32}) {
      const HostTensor dx = HostTensor::Filled(dtype_, {rows_, in_}, 0.5);
      const HostTensor dw = HostTensor::Filled(gradient_dtype, {out_, in_}, 0.5);
      const HostTensor db = HostTensor::Filled(gradient_dtype, {out_}, 0.5);
      LinearBackwardInput({.dy = dy_, .w = w_, .dx = dx, .accumulate = accumulate, .workspace = workspace_}, stream_);
      LinearBackwardWeight({.dy = dy_, .x = x_, .dw = dw, .db = db, .accumulate = accumulate, .workspace = workspace_},
                           stream_);
      const auto expect = [&](const HostTensor& actual, Values& variable) {
        Values expected = testing::FiniteDifferences(variable, loss);
        for (double& value : expected) value += accumulate ? 0.5 : 0.0;
        testing::Tolerance tolerance = testing::ToleranceForSum(actual.view().dtype(), rows_ + in_ + out_);
        tolerance.absolute += 1e-6;  // of the differences
        EXPECT_THAT(actual.ToDoubles(), AllNear(expected, tolerance));
      };
      expect(dx, x);
      expect(dw, w);
      expect(db, bias);
    }
  }
}

TEST_P(LinearTest, SameBitsForAnyThreadCount) {
  testing::ExpectSameBitsForAnyThreadCount([&](Stream& stream) {
    const HostTensor dw(DType::kF32, {out_, in_});
    const HostTensor db(DType::kF32, {out_});
    LinearBackwardWeight({.dy = dy_, .x = x_, .dw = dw, .db = db, .workspace = workspace_}, stream);
    std::vector<uint8_t> bytes = dw.Bytes();
    const std::vector<uint8_t> bias_bytes = db.Bytes();
    bytes.insert(bytes.end(), bias_bytes.begin(), bias_bytes.end());
    bytes.push_back(1);  // so that empty shapes compare something
    return bytes;
  });
}

INSTANTIATE_TEST_SUITE_P(
    All, LinearTest, ::testing::ValuesIn(testing::OpCases({{1, 1, 1}, {1, 7, 3}, {5, 3, 9}, {70, 2, 5}, {0, 2, 3}})),
    testing::OpCaseName);

}  // namespace
}  // namespace trainyard::kernels
