#include "kernels/optim/global_norm.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/testing/op_case.h"
#include "kernels/testing/test_stream.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

struct Result {
  float norm;
  float clip_factor;
};

Result Norm(const std::vector<TensorView>& tensors, float max_norm, float grad_scale, Stream& stream) {
  const HostTensor norm = HostTensor::Filled(DType::kF32, {1}, 77);
  const HostTensor clip_factor = HostTensor::Filled(DType::kF32, {1}, 77);
  const HostTensor workspace(DType::kU8, {GlobalNormWorkspaceBytes(tensors)});
  GlobalNorm({.tensors = tensors,
              .grad_scale = grad_scale,
              .max_norm = max_norm,
              .norm = norm,
              .clip_factor = clip_factor,
              .workspace = workspace},
             stream);
  return {*norm.as<float>(), *clip_factor.as<float>()};
}

// Many sizes, an empty one among them, and one of several blocks of 32768; both dtypes.
std::vector<HostTensor> Gradients() {
  std::vector<HostTensor> tensors;
  uint64_t seed = 0;
  for (int64_t size : {1, 0, 15, 16, 17, 1000, 32768, 32769, 100003}) {
    tensors.push_back(HostTensor::Normal(DType::kF32, {size}, ++seed, 0.01));
    tensors.push_back(HostTensor::Normal(DType::kBF16, {size}, ++seed, 0.03));
  }
  return tensors;
}

std::vector<TensorView> Views(const std::vector<HostTensor>& tensors) {
  return {tensors.begin(), tensors.end()};
}

double ReferenceNorm(const std::vector<HostTensor>& tensors) {
  double sum = 0;
  for (const HostTensor& tensor : tensors) {
    for (double x : tensor.ToDoubles()) sum += x * x;
  }
  return std::sqrt(sum);
}

TEST(GlobalNorm, MatchesDoubleReference) {
  testing::TestStream stream(1);
  const std::vector<HostTensor> tensors = Gradients();
  const double expected = ReferenceNorm(tensors);
  EXPECT_NEAR(Norm(Views(tensors), 0, 1, stream).norm, expected, 1e-7 * expected);
  EXPECT_NEAR(Norm(Views(tensors), 0, 0.25f, stream).norm, 0.25 * expected, 1e-7 * expected);
}

TEST(GlobalNorm, ThreadCountShowsInNoBit) {
  const std::vector<HostTensor> tensors = Gradients();
  testing::ExpectSameBitsForAnyThreadCount([&](Stream& stream) {
    const float norm = Norm(Views(tensors), 0, 1, stream).norm;
    const auto* bytes = reinterpret_cast<const uint8_t*>(&norm);
    return std::vector<uint8_t>(bytes, bytes + sizeof(norm));
  });
}

// Norm 6, limit 1: 1/6. The squared norm would give 1/36 (methods/llmq.md, pitfall 1).
TEST(GlobalNorm, ClipsByTheTrueNorm) {
  testing::TestStream stream(1);
  const HostTensor x = HostTensor::Of(DType::kF32, {3}, {4, 4, 2});
  EXPECT_FLOAT_EQ(Norm({x}, 1, 1, stream).clip_factor, 1.0f / 6);
  EXPECT_FLOAT_EQ(Norm({x}, 3, 2, stream).clip_factor, 0.25f);  // of the scaled gradient's norm, 12
  EXPECT_EQ(Norm({x}, 6, 1, stream).clip_factor, 1.0f);
  EXPECT_EQ(Norm({x}, 7, 1, stream).clip_factor, 1.0f);
  EXPECT_EQ(Norm({x}, 0, 1, stream).clip_factor, 1.0f);
}

// Whole tensors in blocks, then the same cut at a block's edge, as two holders have them: the same sums, bit by bit.
TEST(SquareSums, OfPiecesAreThoseOfTheWhole) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    testing::TestStream stream(3);
    const HostTensor a = HostTensor::Normal(dtype, {1000}, 1, 0.01), b = HostTensor::Normal(dtype, {70001}, 2, 0.03);
    const std::vector<NormPiece> whole = {{a, 128}, {b, 4096}};
    const std::vector<NormPiece> pieces = {{a.view().Slice(0, 384), 128},
                                           {a.view().Slice(384, 616), 128},
                                           {b.view().Slice(0, 65536), 4096},
                                           {b.view().Slice(65536, 4465), 4096}};
    const int64_t bytes = SquareSumsBytes(whole);
    EXPECT_EQ(bytes, 8 * (8 + 18));
    ASSERT_EQ(SquareSumsBytes(pieces), bytes);
    const HostTensor expected(DType::kU8, {bytes}), sums(DType::kU8, {bytes});
    SquareSums({.pieces = whole, .sums = expected}, stream);
    SquareSums({.pieces = pieces, .sums = sums}, stream);
    ASSERT_TRUE(stream.Synchronize().ok());
    EXPECT_EQ(std::memcmp(sums.view().data(), expected.view().data(), static_cast<size_t>(bytes)), 0);

    double squares = 0, reference = 0;
    for (int64_t i = 0; i < bytes / 8; ++i) squares += static_cast<const double*>(expected.view().data())[i];
    for (const HostTensor* tensor : {&a, &b}) {
      for (double x : tensor->ToDoubles()) reference += x * x;
    }
    EXPECT_NEAR(squares, reference, 1e-12 * reference);
    EXPECT_EQ(NormOfSquares(squares, 0).norm, Norm({a, b}, 0, 1, stream).norm);
  }
}

TEST(SquareSums, AnyBlockLengthAndEmptyPieces) {
  testing::TestStream stream(1);
  const HostTensor x = HostTensor::Of(DType::kF32, {5}, {1, 2, 3, 4, 5});
  const HostTensor sums(DType::kU8, {24});
  const std::vector<NormPiece> pieces = {{x.view().Slice(0, 0), 7}, {x, 2}};
  SquareSums({.pieces = pieces, .sums = sums}, stream);
  ASSERT_TRUE(stream.Synchronize().ok());
  const double* const values = static_cast<const double*>(sums.view().data());
  EXPECT_EQ(std::vector<double>(values, values + 3), (std::vector<double>{5, 25, 25}));
}

TEST(SquareSums, NormAndFactorAreGlobalNorms) {
  EXPECT_EQ(NormOfSquares(36, 1).norm, 6.0f);
  EXPECT_FLOAT_EQ(NormOfSquares(36, 1).clip_factor, 1.0f / 6);
  EXPECT_EQ(NormOfSquares(36, 0).clip_factor, 1.0f);
  EXPECT_EQ(NormOfSquares(std::numeric_limits<double>::quiet_NaN(), 1).clip_factor, 1.0f);
}

TEST(GlobalNorm, OfNothingIsZero) {
  testing::TestStream stream(2);
  EXPECT_EQ(Norm({}, 1, 1, stream).norm, 0.0f);
  EXPECT_EQ(Norm({}, 1, 1, stream).clip_factor, 1.0f);
}

// Squares of these leave float's range; f64 sums do not mind.
TEST(GlobalNorm, SquaresNeitherOverflowNorVanish) {
  testing::TestStream stream(1);
  for (double x : {3e30, 3e-30}) {
    const HostTensor tensor = HostTensor::Filled(DType::kF32, {10000}, x);
    EXPECT_FLOAT_EQ(Norm({tensor}, 0, 1, stream).norm, static_cast<float>(100 * x));
  }
}

TEST(GlobalNorm, BadGradientsShowAndDoNotClip) {
  testing::TestStream stream(1);
  for (double bad : {std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()}) {
    HostTensor x = HostTensor::Filled(DType::kF32, {40000}, 1);
    x.as<float>()[39999] = static_cast<float>(bad);
    const Result result = Norm({x}, 1, 1, stream);
    EXPECT_FALSE(std::isfinite(result.norm));
    EXPECT_EQ(result.clip_factor, 1.0f);
  }
}

}  // namespace
}  // namespace trainyard::kernels
