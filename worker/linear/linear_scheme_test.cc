#include "worker/linear/linear_scheme.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/testing/all_near.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/testing/op_case.h"

namespace trainyard::linear {
namespace {

using kernels::DType;
using kernels::Stream;
using kernels::TensorView;
using kernels::testing::AllNear;
using kernels::testing::HostTensor;

constexpr int64_t kRows = 13, kIn = 37, kOut = 21;

// The three products of one layer through a scheme, from f32 values rounded to the storage.
struct Products {
  Products(const LinearScheme& scheme, DType storage) {
    Stream stream(2);
    const HostTensor x = HostTensor::Normal(storage, {kRows, kIn}, 1), w = HostTensor::Normal(storage, {kOut, kIn}, 2);
    const HostTensor dy = HostTensor::Normal(storage, {kRows, kOut}, 3);
    const HostTensor bias = HostTensor::Normal(storage, {kOut}, 4);
    const LinearSite site{.name = "layers.0.qkv", .rows = kRows, .in = kIn, .out = kOut, .storage = storage};
    const HostTensor workspace(DType::kU8, {scheme.WorkspaceBytes(site)});
    const HostTensor y = HostTensor::Filled(storage, {kRows, kOut}, 9),
                     dx = HostTensor::Filled(storage, {kRows, kIn}, 9);
    const HostTensor dw = HostTensor::Filled(DType::kF32, {kOut, kIn}, 9),
                     db = HostTensor::Filled(DType::kF32, {kOut}, 9);
    scheme.Forward({site}, {.x = x, .w = w, .bias = bias, .y = y, .workspace = workspace}, stream);
    LinearBackwardArgs backward{.dy = dy, .x = x, .w = w, .dx = dx, .dw = dw, .db = db, .workspace = workspace};
    scheme.Backward({site}, backward, stream);
    backward.accumulate = true;
    scheme.Backward({site}, backward, stream);
    forward = y.ToDoubles();
    input = dx.ToDoubles();
    weight = dw.ToDoubles();
    bias_gradient = db.ToDoubles();
  }
  std::vector<double> forward, input, weight, bias_gradient;
};

// The same from operands rounded to `operands` before the products, in double.
struct Expected {
  explicit Expected(DType operands) {
    const auto x = HostTensor::Normal(operands, {kRows, kIn}, 1).ToDoubles();
    const auto w = HostTensor::Normal(operands, {kOut, kIn}, 2).ToDoubles();
    const auto dy = HostTensor::Normal(operands, {kRows, kOut}, 3).ToDoubles();
    const auto exact_dy = HostTensor::Normal(DType::kF32, {kRows, kOut}, 3).ToDoubles();
    const auto bias = HostTensor::Normal(DType::kF32, {kOut}, 4).ToDoubles();
    forward.resize(kRows * kOut);
    input.resize(kRows * kIn);
    weight.resize(kOut * kIn);
    bias_gradient.resize(kOut);
    for (size_t r = 0; r < kRows; ++r) {
      for (size_t o = 0; o < kOut; ++o) {
        forward[r * kOut + o] = bias[o];
        bias_gradient[o] += 2 * exact_dy[r * kOut + o];
        for (size_t i = 0; i < kIn; ++i) {
          forward[r * kOut + o] += x[r * kIn + i] * w[o * kIn + i];
          input[r * kIn + i] += dy[r * kOut + o] * w[o * kIn + i];
          weight[o * kIn + i] += 2 * dy[r * kOut + o] * x[r * kIn + i];
        }
      }
    }
  }
  std::vector<double> forward, input, weight, bias_gradient;
};

void ExpectNear(const Products& actual, const Expected& expected) {
  const auto tolerance = kernels::testing::ToleranceForSum(DType::kF32, 64);
  EXPECT_THAT(actual.forward, AllNear(expected.forward, tolerance));
  EXPECT_THAT(actual.input, AllNear(expected.input, tolerance));
  EXPECT_THAT(actual.weight, AllNear(expected.weight, tolerance));
  EXPECT_THAT(actual.bias_gradient, AllNear(expected.bias_gradient, tolerance));
}

TEST(LinearSchemeTest, Fp32ComputesWithOperandsAsStored) {
  ExpectNear(Products(*MakeFp32Scheme(), DType::kF32), Expected(DType::kF32));
}

// Fails if any operand is not rounded, or if the f32 results are.
TEST(LinearSchemeTest, Bf16RoundsOperandsOnly) {
  ExpectNear(Products(*MakeBf16Scheme(), DType::kF32), Expected(DType::kBF16));
}

TEST(LinearSchemeTest, SchemesAgreeOnBf16Storage) {
  const Products a(*MakeFp32Scheme(), DType::kBF16), b(*MakeBf16Scheme(), DType::kBF16);
  EXPECT_EQ(a.forward, b.forward);
  EXPECT_EQ(a.input, b.input);
  EXPECT_EQ(a.weight, b.weight);
  EXPECT_EQ(a.bias_gradient, b.bias_gradient);
}

}  // namespace
}  // namespace trainyard::linear
