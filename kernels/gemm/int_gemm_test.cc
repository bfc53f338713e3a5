#include "kernels/gemm/int_gemm.h"

#include <algorithm>
#include <cmath>

#include "gtest/gtest.h"
#include "kernels/core/philox.h"
#include "kernels/gemm/gemm.h"
#include "kernels/gemm/int_gemm_internal.h"
#include "kernels/testing/all_near.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/testing/op_case.h"
#include "kernels/testing/test_stream.h"

namespace trainyard::kernels {
namespace {

using testing::AllNear;
using testing::HostTensor;

// Codes of one operand, as plain numbers and as stored.
struct Operand {
  std::vector<int> codes;
  HostTensor stored;
  bool packed = false;
  IntCodes view() const { return {.codes = stored, .packed = packed}; }
};

Operand Store(const std::vector<int>& codes, int64_t rows, int64_t depth, bool packed) {
  HostTensor stored(DType::kU8, {rows, packed ? (depth + 1) / 2 : depth});
  uint8_t* bytes = stored.as<uint8_t>();
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t k = 0; k < depth; ++k) {
      const int code = codes[static_cast<size_t>(r * depth + k)];
      if (packed) {
        bytes[r * ((depth + 1) / 2) + k / 2] |= static_cast<uint8_t>((code & 15) << (k % 2 == 0 ? 0 : 4));
      } else {
        bytes[r * depth + k] = static_cast<uint8_t>(code);
      }
    }
    // What lies beyond an odd row's end must not count.
    if (packed && depth % 2 != 0) bytes[r * ((depth + 1) / 2) + depth / 2] |= 0x70;
  }
  return {.codes = codes, .stored = std::move(stored), .packed = packed};
}

Operand RandomCodes(int64_t rows, int64_t depth, int bits, bool packed, uint64_t seed) {
  std::vector<int> codes;
  const PhiloxKey key{.seed = seed, .purpose = kRandomTest};
  for (int64_t i = 0; i < rows * depth; ++i) {
    const uint32_t word = RandomWord(key, static_cast<uint64_t>(i));
    codes.push_back(static_cast<int>(word >> (32 - bits)) - (1 << (bits - 1)));
  }
  return Store(codes, rows, depth, packed);
}

int64_t ExactDot(const Operand& a, const Operand& b, int64_t i, int64_t j, int64_t depth) {
  int64_t sum = 0;
  for (int64_t k = 0; k < depth; ++k) {
    sum += int64_t{a.codes[static_cast<size_t>(i * depth + k)]} * b.codes[static_cast<size_t>(j * depth + k)];
  }
  return sum;
}

void ExpectExactSums(const HostTensor& c, const Operand& a, const Operand& b, int64_t m, int64_t n, int64_t depth) {
  const int32_t* sums = c.as<int32_t>();
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) ASSERT_EQ(int64_t{sums[i * n + j]}, ExactDot(a, b, i, j, depth)) << i << ", " << j;
  }
}

// Every element against 64-bit sums: of the op on the device under test, and of every kernel of this CPU that takes
// such operands.
void ExpectExact(const Operand& a, const Operand& b, int64_t m, int64_t n, int64_t depth) {
  {
    testing::TestStream stream(2);
    const HostTensor c = HostTensor::Filled(DType::kI32, {m, n}, 12345);
    IntGemm({.a = a.view(), .b = b.view(), .depth = depth, .c = c}, stream);
    ExpectExactSums(c, a, b, m, n, depth);
  }
  if (testing::DeviceUnderTest() != Device::kCpu) return;
  for (const internal::IntKernel& kernel : internal::AllIntKernels()) {
    if (kernel.only_small_right && !b.packed) continue;
    testing::TestStream stream(2);
    const HostTensor c = HostTensor::Filled(DType::kI32, {m, n}, 12345);
    internal::IntGemmWith(kernel, {.a = a.view(), .b = b.view(), .depth = depth, .c = c}, stream);
    SCOPED_TRACE(kernel.name);
    ExpectExactSums(c, a, b, m, n, depth);
  }
}

struct Shape {
  int64_t m, n, depth;
};

TEST(IntGemmTest, RandomCodesOfAnyShapeAreExact) {
  for (const Shape& s : {Shape{1, 1, 1},
                         {1, 1, 2},
                         {2, 3, 3},
                         {3, 5, 7},
                         {4, 16, 32},
                         {9, 33, 65},
                         {13, 31, 511},
                         {8, 32, 512},
                         {7, 129, 513},
                         {257, 2, 9},
                         {300, 140, 31},
                         {1, 260, 1030},
                         {5, 4, 0}}) {
    for (const bool a_packed : {false, true}) {
      for (const bool b_packed : {false, true}) {
        SCOPED_TRACE(::testing::Message()
                     << s.m << " x " << s.n << " x " << s.depth << " packed " << a_packed << b_packed);
        ExpectExact(RandomCodes(s.m, s.depth, a_packed ? 4 : 8, a_packed, 1),
                    RandomCodes(s.n, s.depth, b_packed ? 4 : 8, b_packed, 2), s.m, s.n, s.depth);
      }
    }
  }
}

// Where 16-bit saturation, 8-bit sign mistakes and overflow show: all codes at the ends of the range, in every
// combination, and the depth at its limit (-128 * -128 * 131071 = 2147467264, 16384 below 2^31).
TEST(IntGemmTest, ExtremesAreExact) {
  // An emulated device takes seconds for the greatest depth: there only the largest sums.
  const auto is_skipped = [](int64_t depth, int left, int right) {
    return testing::DeviceUnderTest() != Device::kCpu && depth == kMaxIntGemmDepth && (left != -128 || right > 0);
  };
  for (const int64_t depth : {int64_t{2}, int64_t{64}, int64_t{1040}, int64_t{1041}, kMaxIntGemmDepth}) {
    for (const int left : {-128, 127, 0}) {
      for (const int right : {-128, 127}) {
        if (is_skipped(depth, left, right)) continue;
        const std::vector<int> a(static_cast<size_t>(3 * depth), left);
        const std::vector<int> b(static_cast<size_t>(2 * depth), right);
        ExpectExact(Store(a, 3, depth, false), Store(b, 2, depth, false), 3, 2, depth);
      }
      for (const int right : {-8, 7}) {
        if (is_skipped(depth, left, right)) continue;
        const std::vector<int> a(static_cast<size_t>(5 * depth), left);
        const std::vector<int> b(static_cast<size_t>(2 * depth), right);
        ExpectExact(Store(a, 5, depth, false), Store(b, 2, depth, true), 5, 2, depth);
      }
    }
  }
}

// Neighbours of opposite extremes: pairs and fours that cancel or add up inside one instruction.
TEST(IntGemmTest, AlternatingExtremesAreExact) {
  const int64_t depth = 777;
  std::vector<int> a;
  std::vector<int> b;
  for (int64_t i = 0; i < 4 * depth; ++i) {
    a.push_back(i % 3 == 0 ? 127 : -128);
    b.push_back(i % 2 == 0 ? -128 : 127);
  }
  ExpectExact(Store(a, 4, depth, false), Store(b, 4, depth, false), 4, 4, depth);
}

TEST(IntGemmTest, OnlyPackedWeightsMayMeetTheKernelOfFourBits) {
  EXPECT_FALSE(internal::FastestIntKernel({.codes = {}, .packed = false}).only_small_right);
}

TEST(IntGemmTest, SameBitsForAnyThreadCount) {
  const Operand a = RandomCodes(530, 67, 8, false, 3);
  const Operand b = RandomCodes(290, 67, 4, true, 4);
  testing::ExpectSameBitsForAnyThreadCount([&](Stream& stream) {
    const HostTensor c(DType::kI32, {530, 290});
    IntGemm({.a = a.view(), .b = b.view(), .depth = 67, .c = c}, stream);
    return c.Bytes();
  });
}

TEST(CodeRowSumsTest, SumsAreExact) {
  for (const int64_t depth : {int64_t{0}, int64_t{1}, int64_t{511}, int64_t{513}, int64_t{1500}}) {
    for (const bool packed : {false, true}) {
      testing::TestStream stream(2);
      const Operand a = RandomCodes(37, depth, packed ? 4 : 8, packed, 5);
      const HostTensor sums = HostTensor::Filled(DType::kI32, {37}, 9);
      CodeRowSums({.a = a.view(), .depth = depth, .sums = sums}, stream);
      for (int64_t i = 0; i < 37; ++i) {
        int sum = 0;
        for (int64_t k = 0; k < depth; ++k) sum += a.codes[static_cast<size_t>(i * depth + k)];
        EXPECT_EQ(sums.as<int32_t>()[i], sum) << "row " << i << " depth " << depth;
      }
    }
  }
}

// Steps of realistic size, codes of `bits` bits.
class GridProblem {
 public:
  GridProblem(const Shape& shape, int a_bits, int b_bits)
      : shape_(shape),
        a_(RandomCodes(shape.m, shape.depth, a_bits, a_bits <= 4, 6)),
        b_(RandomCodes(shape.n, shape.depth, b_bits, b_bits <= 4, 7)),
        a_steps_(Steps(shape.m, 8)),
        b_steps_(Steps(shape.n, 9)),
        a_sums_(DType::kI32, {shape.m}),
        b_sums_(DType::kI32, {shape.n}) {
    testing::TestStream stream(1);
    CodeRowSums({.a = a_.view(), .depth = shape.depth, .sums = a_sums_}, stream);
    CodeRowSums({.a = b_.view(), .depth = shape.depth, .sums = b_sums_}, stream);
  }

  HostTensor Run(DType dtype, Stream& stream, const TensorView& bias = {}) const {
    HostTensor y = HostTensor::Filled(dtype, {shape_.m, shape_.n}, 99);
    IntGridLinear({.a = a_.view(),
                   .b = b_.view(),
                   .depth = shape_.depth,
                   .a_steps = a_steps_,
                   .b_steps = b_steps_,
                   .a_sums = a_sums_,
                   .b_sums = b_sums_,
                   .bias = bias,
                   .y = y},
                  stream);
    return y;
  }

  // step_a step_b times the exact sum of (2a + 1)(2b + 1) / 4.
  std::vector<double> Reference() const {
    std::vector<double> y;
    for (int64_t i = 0; i < shape_.m; ++i) {
      for (int64_t j = 0; j < shape_.n; ++j) {
        int64_t sum = 0;
        for (int64_t k = 0; k < shape_.depth; ++k) {
          sum += int64_t{2 * a_.codes[static_cast<size_t>(i * shape_.depth + k)] + 1} *
                 (2 * b_.codes[static_cast<size_t>(j * shape_.depth + k)] + 1);
        }
        y.push_back(static_cast<double>(sum) / 4 * a_steps_.ToDoubles()[static_cast<size_t>(i)] *
                    b_steps_.ToDoubles()[static_cast<size_t>(j)]);
      }
    }
    return y;
  }

  // The values (code + 1/2) step in f32, and their f32 product.
  std::vector<double> DequantizedProduct() const {
    const HostTensor a = Dequantize(a_, a_steps_, shape_.m);
    const HostTensor b = Dequantize(b_, b_steps_, shape_.n);
    const HostTensor c(DType::kF32, {shape_.m, shape_.n});
    testing::TestStream stream(1);
    Gemm({.a = a, .b = b, .c = c, .transpose_b = true}, stream);
    return c.ToDoubles();
  }

 private:
  static HostTensor Steps(int64_t count, uint64_t seed) {
    HostTensor steps = HostTensor::Normal(DType::kF32, {count}, seed);
    for (int64_t i = 0; i < count; ++i) steps.as<float>()[i] = 0.01f + 0.01f * std::abs(steps.as<float>()[i]);
    return steps;
  }
  HostTensor Dequantize(const Operand& operand, const HostTensor& steps, int64_t rows) const {
    HostTensor values(DType::kF32, {rows, shape_.depth});
    for (int64_t i = 0; i < rows * shape_.depth; ++i) {
      values.as<float>()[i] =
          (static_cast<float>(operand.codes[static_cast<size_t>(i)]) + 0.5f) * steps.as<float>()[i / shape_.depth];
    }
    return values;
  }

  Shape shape_;
  Operand a_, b_;
  HostTensor a_steps_, b_steps_, a_sums_, b_sums_;
};

TEST(IntGridLinearTest, IsTheExactSumRoundedOnce) {
  testing::TestStream stream(2);
  for (const Shape& shape : {Shape{1, 1, 1}, {5, 37, 129}, {3, 40, 1031}, {2, 3, 0}}) {
    for (const auto& [a_bits, b_bits] : {std::pair{8, 8}, {4, 4}, {8, 4}, {1, 1}, {3, 2}}) {
      const GridProblem problem(shape, a_bits, b_bits);
      EXPECT_THAT(problem.Run(DType::kF32, stream).ToDoubles(), AllNear(problem.Reference(), {.relative = 0x1.001p-24}))
          << "depth " << shape.depth << " bits " << a_bits << ", " << b_bits;
      EXPECT_THAT(problem.Run(DType::kBF16, stream).ToDoubles(), AllNear(problem.Reference(), {.relative = 0x1.02p-8}));
    }
  }
}

// quest.md section 5, 7: the product of codes is the product of the dequantized values. The f32 product loses up to a
// few 1e-7 of the sum of magnitudes.
TEST(IntGridLinearTest, EqualsTheDequantizedF32Product) {
  testing::TestStream stream(2);
  const GridProblem problem({33, 70, 512}, 4, 4);
  const std::vector<double> y = problem.Run(DType::kF32, stream).ToDoubles();
  double scale = 0;
  for (double value : y) scale = std::max(scale, std::abs(value));
  EXPECT_THAT(y, AllNear(problem.DequantizedProduct(), {.absolute = 1e-6 * scale}));
}

// The largest bracket that INT8 reaches: 4 * 127.5^2 * 131071 = 8.5e9 does not fit 32 bits.
TEST(IntGridLinearTest, ExtremesDoNotOverflow) {
  testing::TestStream stream(1);
  const int64_t depth = kMaxIntGemmDepth;
  const Operand a = Store(std::vector<int>(static_cast<size_t>(depth), -128), 1, depth, false);
  const HostTensor sums(DType::kI32, {1});
  CodeRowSums({.a = a.view(), .depth = depth, .sums = sums}, stream);
  const HostTensor steps = HostTensor::Filled(DType::kF32, {1}, 0.5);
  const HostTensor y(DType::kF32, {1, 1});
  IntGridLinear({.a = a.view(),
                 .b = a.view(),
                 .depth = depth,
                 .a_steps = steps,
                 .b_steps = steps,
                 .a_sums = sums,
                 .b_sums = sums,
                 .y = y},
                stream);
  const double expected = 127.5 * 127.5 * static_cast<double>(depth) * 0.25;
  EXPECT_EQ(y.as<float>()[0], static_cast<float>(expected));
}

TEST(IntGridLinearTest, AddsTheBiasOfEachColumn) {
  testing::TestStream stream(2);
  const Shape shape{5, 300, 64};
  const GridProblem problem(shape, 4, 4);
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const HostTensor bias = HostTensor::Normal(dtype, {shape.n}, 10);
    std::vector<double> expected = problem.Reference();
    for (size_t i = 0; i < expected.size(); ++i) expected[i] += bias.ToDoubles()[i % static_cast<size_t>(shape.n)];
    EXPECT_THAT(problem.Run(DType::kF32, stream, bias).ToDoubles(), AllNear(expected, {.absolute = 1e-6}));
    EXPECT_THAT(problem.Run(DType::kBF16, stream, bias).ToDoubles(),
                AllNear(expected, {.absolute = 1e-6, .relative = 0x1.02p-8}));
  }
}

TEST(IntGridLinearTest, SameBitsAsOnTheCpu) {
  const GridProblem problem({35, 150, 203}, 8, 4);
  const HostTensor bias = HostTensor::Normal(DType::kF32, {150}, 10);
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    testing::ExpectSameBitsAsOnCpu([&](Stream& stream) { return problem.Run(dtype, stream, bias).Bytes(); });
  }
}

TEST(IntGridLinearTest, SameBitsForAnyThreadCount) {
  const GridProblem problem({270, 150, 40}, 4, 4);
  testing::ExpectSameBitsForAnyThreadCount([&](Stream& stream) { return problem.Run(DType::kBF16, stream).Bytes(); });
}

}  // namespace
}  // namespace trainyard::kernels
