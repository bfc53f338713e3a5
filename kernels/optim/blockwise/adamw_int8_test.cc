#include "kernels/optim/blockwise/adamw_int8.h"

#include <cmath>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/optim/adamw.h"
#include "kernels/optim/blockwise/moment8.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/testing/op_case.h"
#include "kernels/testing/test_stream.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

TEST(Moment8Test, EveryCodeComesBackAsItself) {
  for (const float scale : {1e-20f, 0.37f, 5e12f}) {
    for (int code = 1; code < 256; ++code) {  // first moments have no code 0
      EXPECT_EQ(FirstMomentCode(FirstMomentOf(static_cast<uint8_t>(code), scale), 1 / scale), code) << scale;
    }
    for (int code = 0; code < 256; ++code) {
      EXPECT_EQ(SecondMomentCode(SecondMomentOf(static_cast<uint8_t>(code), scale), 1 / scale), code) << scale;
    }
  }
}

// Half a code is 2 / |q| of the value. A linear grid of 8 bits, the plausible simpler choice, is off by all
// of the value 1/500 below the largest.
TEST(Moment8Test, RelativeErrorsAreThoseOfTheHeader) {
  for (double share = 1; share > 2e-5; share *= 0.97) {
    const auto x = static_cast<float>(share);
    const double first = FirstMomentOf(FirstMomentCode(-x, 1), 1);
    const double second = SecondMomentOf(SecondMomentCode(x, 1), 1);
    const double root = std::pow(share, 0.25), q1 = 127 * root, q2 = 255 * root;
    EXPECT_NEAR(first, -share, share * 2.3 / q1) << share;
    EXPECT_NEAR(second, share, share * 2.3 / q2) << share;
  }
  EXPECT_EQ(FirstMomentOf(FirstMomentCode(0, 1), 1), 0);
  EXPECT_EQ(SecondMomentCode(0, 1), 0);
  EXPECT_EQ(SecondMomentCode(1e-30f, 1), 1);  // a divisor must not become 0
}

struct Tensors {
  explicit Tensors(int64_t count, DType dtype = DType::kF32)
      : param(HostTensor::Normal(dtype, {count}, 1)),
        m(DType::kU8, {count}),
        v(DType::kU8, {count}),
        m_scale(DType::kF32, {Moment8Blocks(count)}),
        v_scale(DType::kF32, {Moment8Blocks(count)}) {}
  AdamWInt8Args args(const HostTensor& grad, int64_t step) const {
    return {.param = param,
            .grad = grad,
            .m = m,
            .v = v,
            .m_scale = m_scale,
            .v_scale = v_scale,
            .lr = 0.01f,
            .weight_decay = 0.1f,
            .step = step};
  }
  std::vector<uint8_t> Bytes() const {
    std::vector<uint8_t> bytes;
    for (const HostTensor* tensor : {&param, &m, &v, &m_scale, &v_scale}) {
      const std::vector<uint8_t> more = tensor->Bytes();
      bytes.insert(bytes.end(), more.begin(), more.end());
    }
    return bytes;
  }
  HostTensor param, m, v, m_scale, v_scale;
};

// The first step reads no code, so it is that of AdamW bit for bit.
TEST(AdamWInt8Test, FirstStepIsExact) {
  for (const int64_t count : {1, 255, 256, 257, 20000}) {
    testing::TestStream stream(2);
    const HostTensor grad = HostTensor::Normal(DType::kF32, {count}, 3, 0.01);
    const Tensors coded(count);
    AdamWInt8(coded.args(grad, 1), stream);
    const HostTensor param = HostTensor::Normal(DType::kF32, {count}, 1);
    const HostTensor m(DType::kF32, {count}), v(DType::kF32, {count});
    AdamW({.param = param, .grad = grad, .m = m, .v = v, .lr = 0.01f, .weight_decay = 0.1f}, stream);
    EXPECT_EQ(coded.param.ToDoubles(), param.ToDoubles()) << count;
  }
}

// 40 steps of gradients over three orders of magnitude: the parameters' ways differ by a few percent of their length.
// Swapped moments, a linear grid, or a moment stored without its scale are off by as much as the way itself.
TEST(AdamWInt8Test, StaysCloseToAdamW) {
  constexpr int64_t kCount = 3000;
  testing::TestStream stream(1);
  const Tensors coded(kCount);
  const HostTensor param = coded.param.Copy();
  const HostTensor start = coded.param.Copy();
  const HostTensor m(DType::kF32, {kCount}), v(DType::kF32, {kCount});
  for (int64_t step = 1; step <= 40; ++step) {
    const HostTensor grad = HostTensor::Normal(DType::kF32, {kCount}, static_cast<uint64_t>(100 + step));
    for (int64_t i = 0; i < kCount; ++i) {
      float& g = grad.as<float>()[i];
      g = (g + 0.5f) * std::pow(10.0f, -static_cast<float>(i % 4));
    }
    AdamWInt8Args args = coded.args(grad, step);
    args.weight_decay = 0;
    AdamWInt8(args, stream);
    AdamW({.param = param, .grad = grad, .m = m, .v = v, .lr = 0.01f, .step = step}, stream);
  }
  double distance = 0, way = 0;
  for (int64_t i = 0; i < kCount; ++i) {
    const double exact = param.as<float>()[i], from = start.as<float>()[i];
    distance += std::pow(coded.param.as<float>()[i] - exact, 2);
    way += std::pow(exact - from, 2);
  }
  EXPECT_LT(std::sqrt(distance / way), 0.1);
  EXPECT_GT(distance, 0);
}

TEST(AdamWInt8Test, ThreadCountShowsInNoBit) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    testing::ExpectSameBitsForAnyThreadCount([&](Stream& stream) {
      const Tensors x(30011, dtype);
      for (int64_t step = 1; step <= 3; ++step) {
        AdamWInt8(x.args(HostTensor::Normal(DType::kF32, {30011}, static_cast<uint64_t>(step)), step), stream);
      }
      return x.Bytes();
    });
  }
}

TEST(AdamWInt8Test, AllDevicesGiveTheBitsOfTheCpu) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const int64_t count : {1, 255, 2000}) {
      testing::ExpectSameBitsAsOnCpu([&](Stream& stream) {
        const Tensors x(count, dtype);
        const HostTensor factor = HostTensor::Of(DType::kF32, {1}, {0.3});
        for (int64_t step = 1; step <= 4; ++step) {
          const HostTensor grad = HostTensor::Normal(DType::kF32, {count}, static_cast<uint64_t>(step), 0.02);
          AdamWInt8Args args = x.args(grad, step);
          args.gradient_factor = factor;
          AdamWInt8(args, stream);
        }
        return x.Bytes();
      });
    }
  }
}

TEST(AdamWInt8Test, ParamIsItsMasterRounded) {
  testing::TestStream stream(1);
  const Tensors exact(700), narrow(700, DType::kBF16);
  const HostTensor master = exact.param.Copy();
  const HostTensor grad = HostTensor::Normal(DType::kF32, {700}, 5);
  AdamWInt8(exact.args(grad, 1), stream);
  AdamWInt8Args args = narrow.args(grad, 1);
  args.master = master;
  AdamWInt8(args, stream);
  EXPECT_EQ(master.Bytes(), exact.param.Bytes());
  EXPECT_EQ(narrow.param.Bytes(), HostTensor::Of(DType::kBF16, {700}, master.ToDoubles()).Bytes());
}

}  // namespace
}  // namespace trainyard::kernels
