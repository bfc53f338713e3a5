#include "kernels/transform/dct.h"

#include <algorithm>
#include <cmath>

#include "gtest/gtest.h"
#include "kernels/testing/all_near.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/testing/op_case.h"
#include "kernels/testing/test_stream.h"

namespace trainyard::kernels {
namespace {

using testing::AllNear;
using testing::HostTensor;
using testing::OpCase;
using Values = std::vector<double>;

// P[i][j], straight from the formula, in double.
double Basis(int64_t i, int64_t j, int64_t n) {
  const double scale = std::sqrt((j == 0 ? 1.0 : 2.0) / static_cast<double>(n));
  // The angle's whole turns are removed in integers: double's cosine would lose digits to them.
  const int64_t quarter_steps = (2 * i + 1) * j % (4 * n);
  return scale * std::cos(M_PI * static_cast<double>(quarter_steps) / (2.0 * static_cast<double>(n)));
}

// Of a row of length n at x[0], x[stride], ...
void Reference(const double* x, int64_t stride, int64_t n, double* y) {
  for (int64_t j = 0; j < n; ++j) {
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += x[i * stride] * Basis(i, j, n);
    y[j * stride] = sum;
  }
}

Values Reference(const HostTensor& x, int axis) {
  const Values values = x.ToDoubles();
  Values result(values.size());
  const int64_t rows = x.view().dim(0);
  const int64_t cols = x.view().dim(1);
  if (axis == 1) {
    for (int64_t r = 0; r < rows; ++r) Reference(values.data() + r * cols, 1, cols, result.data() + r * cols);
  } else {
    for (int64_t c = 0; c < cols; ++c) Reference(values.data() + c, cols, rows, result.data() + c);
  }
  return result;
}

HostTensor Fft(const HostTensor& x, int axis, Stream& stream) {
  const DctPlan plan(x.view().dim(axis), stream.device());
  HostTensor y = HostTensor::Filled(DType::kF32, {x.view().dim(0), x.view().dim(1)}, 99);
  const HostTensor workspace(DType::kU8, {plan.thread_bytes() * stream.threads()});
  DctFft({.x = x, .plan = &plan, .y = y, .axis = axis, .workspace = workspace}, stream);
  return y;
}

HostTensor Matrix(const HostTensor& x, int axis, Stream& stream) {
  const int64_t n = x.view().dim(axis);
  const HostTensor basis = HostTensor::Filled(x.view().dtype(), {n, n}, 99);
  DctBasis({.basis = basis}, stream);
  HostTensor y = HostTensor::Filled(DType::kF32, {x.view().dim(0), x.view().dim(1)}, 99);
  const HostTensor workspace(DType::kU8, {DctMatrixWorkspaceBytes(x, axis)});
  DctMatrix({.x = x, .basis = basis, .y = y, .axis = axis, .workspace = workspace}, stream);
  return y;
}

// Lengths: odd, even, prime, powers, with the factors 2, 3, 4, 5, 7, 11 and 13, and those of models (896 and 1408).
class DctTest : public ::testing::TestWithParam<OpCase> {
 protected:
  const HostTensor x_ = HostTensor::Normal(GetParam().dtype, GetParam().shape, 1);
  testing::TestStream stream_{2};
};

TEST_P(DctTest, FftMatchesTheDefinition) {
  for (const int axis : {0, 1}) {
    EXPECT_THAT(
        Fft(x_, axis, stream_).ToDoubles(),
        AllNear(Reference(x_, axis), testing::ToleranceForSum(DType::kF32, GetParam().dim(0) + GetParam().dim(1))))
        << "axis " << axis;
  }
}

TEST_P(DctTest, FftAndMatrixAgree) {
  if (GetParam().dtype == DType::kBF16) return;  // there the basis is rounded too: below
  for (const int axis : {0, 1}) {
    EXPECT_THAT(Matrix(x_, axis, stream_).ToDoubles(), AllNear(Fft(x_, axis, stream_).ToDoubles(), {.absolute = 1e-5}))
        << "axis " << axis;
  }
}

TEST_P(DctTest, SameBitsForAnyThreadCount) {
  for (const int axis : {0, 1}) {
    testing::ExpectSameBitsForAnyThreadCount([&](Stream& stream) { return Fft(x_, axis, stream).Bytes(); });
  }
}

INSTANTIATE_TEST_SUITE_P(All, DctTest,
                         ::testing::ValuesIn(testing::OpCases({{1, 1},    {2, 3},    {4, 5},    {7, 6},   {8, 8},
                                                               {9, 10},   {16, 15},  {17, 12},  {11, 14}, {13, 22},
                                                               {26, 49},  {64, 121}, {30, 31},  {3, 97},  {2, 62},
                                                               {40, 128}, {5, 210},  {3, 1000}, {9, 896}, {2, 1408}})),
                         testing::OpCaseName);

// dct-lowrank.md 2.1: the rows of Q = P^T for n = 4.
TEST(DctBasisTest, FourByFourIsTheTable) {
  testing::TestStream stream(1);
  const HostTensor basis(DType::kF32, {4, 4});
  DctBasis({.basis = basis}, stream);
  const Values transposed = {0.5, 0.653281,  0.5,  0.270598, 0.5, 0.270598,  -0.5, -0.653281,
                             0.5, -0.270598, -0.5, 0.653281, 0.5, -0.653281, 0.5,  -0.270598};
  EXPECT_THAT(basis.ToDoubles(), AllNear(transposed, {.absolute = 1e-6}));
}

// dct-lowrank.md section 5: ||Q Q^T - I||_max < 1e-6 in f32; and pitfall 6 for bf16.
TEST(DctBasisTest, IsOrthonormal) {
  testing::TestStream stream(2);
  for (const int64_t n : {1, 4, 8, 15, 64, 896}) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      const HostTensor basis(dtype, {n, n});
      DctBasis({.basis = basis}, stream);
      const Values p = basis.ToDoubles();
      double worst = 0;
      const int64_t step = n > 100 ? 37 : 1;  // some pairs of columns of the large one
      for (int64_t a = 0; a < n; a += step) {
        for (int64_t b = a; b < n; b += step) {
          double dot = 0;
          for (int64_t i = 0; i < n; ++i) dot += p[static_cast<size_t>(i * n + a)] * p[static_cast<size_t>(i * n + b)];
          worst = std::max(worst, std::abs(dot - (a == b ? 1.0 : 0.0)));
        }
      }
      EXPECT_LT(worst, dtype == DType::kF32 ? 1e-6 : 4.5e-3) << n;
    }
  }
}

// dct-lowrank.md section 5: the FFT gives x Q^T, not x Q (the release mixes the two).
TEST(DctOrderTest, IsNotTheTransposedBasis) {
  testing::TestStream stream(1);
  const HostTensor x = HostTensor::Normal(DType::kF32, {1, 16}, 3);
  const Values y = Fft(x, 1, stream).ToDoubles();
  const Values values = x.ToDoubles();
  double largest_difference = 0;
  for (int64_t j = 0; j < 16; ++j) {
    double sum = 0;
    for (int64_t i = 0; i < 16; ++i) sum += values[static_cast<size_t>(i)] * Basis(j, i, 16);
    largest_difference = std::max(largest_difference, std::abs(sum - y[static_cast<size_t>(j)]));
  }
  EXPECT_GT(largest_difference, 0.1);
}

// Column j of P becomes the j-th unit vector: order and sign of every output, on a long and on an odd length.
TEST(DctOrderTest, BasisVectorsBecomeUnitVectors) {
  testing::TestStream stream(1);
  for (const int64_t n : {15, 96}) {
    Values vectors;
    for (int64_t j = 0; j < n; ++j) {
      for (int64_t i = 0; i < n; ++i) vectors.push_back(Basis(i, j, n));
    }
    const HostTensor x = HostTensor::Of(DType::kF32, {n, n}, vectors);
    Values unit(static_cast<size_t>(n * n));
    for (int64_t j = 0; j < n; ++j) unit[static_cast<size_t>(j * n + j)] = 1;
    EXPECT_THAT(Fft(x, 1, stream).ToDoubles(), AllNear(unit, {.absolute = 1e-6}));
  }
}

// The result of a row does not depend on its neighbours: values of other sizes beside it leave its bits alone.
TEST(DctIndependenceTest, RowsDoNotMix) {
  testing::TestStream stream(1);
  for (const int64_t n : {21, 24}) {
    const HostTensor x = HostTensor::Normal(DType::kF32, {3, n}, 5);
    const HostTensor alone = HostTensor::Normal(DType::kF32, {1, n}, 5);
    for (int64_t i = 0; i < 2 * n; ++i) x.as<float>()[n + i] *= 1e20f;
    const HostTensor together = Fft(x, 1, stream);
    const HostTensor expected = Fft(alone, 1, stream);
    for (int64_t k = 0; k < n; ++k) EXPECT_EQ(together.as<float>()[k], expected.as<float>()[k]) << k;
  }
}

TEST(DctMatrixTest, Bf16IsTheProductWithTheRoundedBasis) {
  testing::TestStream stream(2);
  const HostTensor x = HostTensor::Normal(DType::kBF16, {5, 48}, 7);
  for (const int axis : {0, 1}) {
    // Half a bf16 step an element of the basis, whose columns have norm 1: about 0.002 of the row's norm.
    EXPECT_THAT(Matrix(x, axis, stream).ToDoubles(), AllNear(Reference(x, axis), {.absolute = 0.03}));
  }
}

// Fewer buffers than threads: the bits are the same.
TEST(DctWorkspaceTest, OneBufferServesManyThreads) {
  testing::TestStream stream(3);
  const DctPlan plan(60, stream.device());
  const HostTensor x = HostTensor::Normal(DType::kF32, {100, 60}, 9);
  const HostTensor y(DType::kF32, {100, 60});
  const HostTensor workspace(DType::kU8, {plan.thread_bytes()});
  DctFft({.x = x, .plan = &plan, .y = y, .workspace = workspace}, stream);
  EXPECT_EQ(y.Bytes(), Fft(x, 1, stream).Bytes());
}

// More numbers than the shared memory of a GPU's block holds, along rows and along columns; and a plan of the CPU on a
// device's stream.
TEST(DctWorkspaceTest, LongLengths) {
  testing::TestStream stream(1);
  Stream cpu(1);
  for (const int64_t n : {3500, 12500}) {
    for (const int axis : {0, 1}) {
      const int64_t count = axis == 0 ? 9 : 2;
      const HostTensor x = HostTensor::Normal(DType::kF32, {axis == 0 ? n : count, axis == 0 ? count : n}, 11);
      const Values expected = Fft(x, axis, cpu).ToDoubles();
      EXPECT_THAT(Fft(x, axis, stream).ToDoubles(), AllNear(expected, {.absolute = 1e-5})) << n << " axis " << axis;
      const DctPlan plan(n);
      const HostTensor y(DType::kF32, {x.view().dim(0), x.view().dim(1)});
      const HostTensor workspace(DType::kU8, {plan.thread_bytes()});
      DctFft({.x = x, .plan = &plan, .y = y, .axis = axis, .workspace = workspace}, stream);
      EXPECT_EQ(y.ToDoubles(), expected);
    }
  }
}

TEST(DctWorkspaceTest, NoRowsAreNoWork) {
  testing::TestStream stream(2);
  const HostTensor x(DType::kF32, {0, 12});
  EXPECT_TRUE(Fft(x, 1, stream).Bytes().empty());
}

}  // namespace
}  // namespace trainyard::kernels
