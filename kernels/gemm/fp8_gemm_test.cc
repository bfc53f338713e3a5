#include "kernels/gemm/fp8_gemm.h"

#include <cmath>

#include "gtest/gtest.h"
#include "kernels/gemm/fp8_gemm_internal.h"
#include "kernels/gemm/gemm.h"
#include "kernels/gemm/gemm_tuning.h"
#include "kernels/quant/abs_max.h"
#include "kernels/quant/fp8_quantize.h"
#include "kernels/testing/all_near.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/testing/op_case.h"
#include "kernels/testing/test_stream.h"

namespace trainyard::kernels {
namespace internal {

// Only programs with CUDA kernels have them.
__attribute__((weak)) void Fp8GemmTiled(const Fp8GemmArgs& args, Stream& stream);
__attribute__((weak)) void Fp8TransposeBytes(const TensorView& x, void* y, Stream& stream);

}  // namespace internal

namespace {

using testing::AllNear;
using testing::HostTensor;

// Quantized normal numbers: codes, factor, and the codes as bf16.
struct Operand {
  Operand(DType code_type, int64_t rows, int64_t depth, uint64_t seed)
      : codes(code_type, {rows, depth}), inverse(DType::kF32, {1}), values(DType::kBF16, {rows, depth}) {
    Stream stream(1);
    const HostTensor x = HostTensor::Normal(DType::kF32, {rows, depth}, seed);
    const HostTensor amax(DType::kF32, {1});
    AbsMax({.x = x, .y = amax}, stream);
    Fp8Quantize({.x = x, .amax = amax, .codes = codes, .inverse = inverse, .values = values}, stream);
  }
  HostTensor codes, inverse, values;
};

struct Fp8Case {
  DType a_type, b_type;
  int64_t m, n, k;
};

struct Layout {
  bool transpose_a = false;
  bool transpose_b = true;
};

class Fp8GemmTest : public ::testing::TestWithParam<Fp8Case> {
 protected:
  static Operand Make(DType type, int64_t rows, int64_t depth, bool depth_first, uint64_t seed) {
    return depth_first ? Operand(type, depth, rows, seed) : Operand(type, rows, depth, seed);
  }
  Operand A(const Layout& layout) const { return Make(case_.a_type, case_.m, case_.k, layout.transpose_a, 1); }
  Operand B(const Layout& layout) const { return Make(case_.b_type, case_.n, case_.k, !layout.transpose_b, 2); }

  struct Factors {
    float alpha = 1, beta = 0;
    TensorView bias = {};
  };
  HostTensor Run(const Layout& layout, DType c_type, const Factors& factors, Stream& stream,
                 void (*gemm)(const Fp8GemmArgs&, Stream&) = Fp8Gemm) const {
    const Operand a = A(layout);
    const Operand b = B(layout);
    HostTensor c = HostTensor::Normal(c_type, {case_.m, case_.n}, 3);
    const HostTensor workspace(DType::kU8, {Fp8GemmWorkspaceBytes(DType::kBF16, case_.m, case_.n, case_.k)});
    gemm({.a = a.codes,
          .b = b.codes,
          .a_inverse = a.inverse,
          .b_inverse = b.inverse,
          .c = c,
          .transpose_a = layout.transpose_a,
          .transpose_b = layout.transpose_b,
          .alpha = factors.alpha,
          .beta = factors.beta,
          .bias = factors.bias,
          .workspace = workspace},
         stream);
    TY_CHECK_OK(stream.Synchronize());
    return c;
  }

  std::vector<double> Reference(const Layout& layout, DType c_type, double alpha, double beta,
                                const std::vector<double>& bias) const {
    const Operand a_codes = A(layout);
    const Operand b_codes = B(layout);
    const std::vector<double> a = a_codes.values.ToDoubles();
    const std::vector<double> b = b_codes.values.ToDoubles();
    const double factor = alpha * a_codes.inverse.ToDoubles()[0] * b_codes.inverse.ToDoubles()[0];
    std::vector<double> c = HostTensor::Normal(c_type, {case_.m, case_.n}, 3).ToDoubles();
    for (int64_t i = 0; i < case_.m; ++i) {
      for (int64_t j = 0; j < case_.n; ++j) {
        double sum = 0;
        for (int64_t p = 0; p < case_.k; ++p) {
          sum += a[static_cast<size_t>(layout.transpose_a ? p * case_.m + i : i * case_.k + p)] *
                 b[static_cast<size_t>(layout.transpose_b ? j * case_.k + p : p * case_.n + j)];
        }
        double& out = c[static_cast<size_t>(i * case_.n + j)];
        out = factor * sum + beta * out;
        if (!bias.empty()) out += bias[static_cast<size_t>(j)];
      }
    }
    return c;
  }

  const Fp8Case case_ = GetParam();
};

TEST_P(Fp8GemmTest, MatchesDoubleReference) {
  testing::TestStream stream(2);
  const HostTensor bias = HostTensor::Normal(DType::kBF16, {case_.n}, 4);
  const HostTensor f32_bias = HostTensor::Normal(DType::kF32, {case_.n}, 5);
  for (const DType c_type : {DType::kF32, DType::kBF16}) {
    const testing::Tolerance tolerance = testing::ToleranceForSum(c_type, case_.k);
    for (const Layout& layout : {Layout{}, Layout{false, false}, Layout{true, false}, Layout{true, true}}) {
      EXPECT_THAT(Run(layout, c_type, {}, stream).ToDoubles(), AllNear(Reference(layout, c_type, 1, 0, {}), tolerance));
    }
    EXPECT_THAT(Run({}, c_type, {.alpha = 0.5f, .beta = 1, .bias = bias}, stream).ToDoubles(),
                AllNear(Reference({}, c_type, 0.5, 1, bias.ToDoubles()), tolerance));
    EXPECT_THAT(Run({}, c_type, {.alpha = -1, .bias = f32_bias}, stream).ToDoubles(),
                AllNear(Reference({}, c_type, -1, 0, f32_bias.ToDoubles()), tolerance));
  }
}

// As gemm_test.cc has it for Gemm.
TEST_P(Fp8GemmTest, EveryBackendAndTuningAgreesWithTheCpusLibrary) {
  testing::TestStream stream(1);
  Stream cpu(1);
  const HostTensor bias = HostTensor::Normal(DType::kBF16, {case_.n}, 4);
  const Factors factors{.alpha = 0.5f, .beta = 1, .bias = bias};
  const GemmTuning before = CurrentGemmTuning();
  for (const DType c_type : {DType::kF32, DType::kBF16}) {
    const testing::Tolerance tolerance = testing::ToleranceForSum(c_type, case_.k);
    for (const Layout& layout : {Layout{}, Layout{true, false}}) {
      const std::vector<double> library = Run(layout, c_type, factors, cpu).ToDoubles();
      for (const GemmTuning tuning : {GemmTuning::kFirst, GemmTuning::kMeasured}) {
        SetGemmTuning(tuning);
        EXPECT_THAT(Run(layout, c_type, factors, stream).ToDoubles(), AllNear(library, tolerance));
      }
      if (stream.device() == Device::kCpu) continue;
      EXPECT_THAT(Run(layout, c_type, factors, stream, internal::Fp8GemmTiled).ToDoubles(),
                  AllNear(library, tolerance));
    }
  }
  SetGemmTuning(before);
}

// On a CUDA stream operands that lie along k need no workspace.
TEST_P(Fp8GemmTest, NeedsNoWorkspaceForCodesAlongK) {
  testing::TestStream stream(1);
  if (stream.device() == Device::kCpu) GTEST_SKIP() << "the CPU widens the codes";
  const Operand a = A({}), b = B({});
  const HostTensor c(DType::kF32, {case_.m, case_.n});
  Fp8Gemm({.a = a.codes, .b = b.codes, .a_inverse = a.inverse, .b_inverse = b.inverse, .c = c, .transpose_b = true},
          stream);
  EXPECT_EQ(c.Bytes(), Run({}, DType::kF32, {}, stream).Bytes());
}

// What the training recipe computes with Gemm on the codes' values.
TEST_P(Fp8GemmTest, HasTheBitsOfTheEmulationOnTheCpu) {
  Stream stream(2);
  const Operand a = A({});
  const Operand b = B({});
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const HostTensor a_values(dtype, {case_.m, case_.k}), b_values(dtype, {case_.n, case_.k});
    const HostTensor one = HostTensor::Filled(DType::kF32, {1}, 1);
    Fp8Dequantize({.codes = a.codes, .inverse = one, .y = a_values}, stream);
    Fp8Dequantize({.codes = b.codes, .inverse = one, .y = b_values}, stream);
    const HostTensor c(dtype, {case_.m, case_.n}), expected(dtype, {case_.m, case_.n});
    const HostTensor workspace(DType::kU8, {Fp8GemmWorkspaceBytes(dtype, case_.m, case_.n, case_.k)});
    Gemm({.a = a_values,
          .b = b_values,
          .c = expected,
          .transpose_b = true,
          .alpha = a.inverse.as<float>()[0] * b.inverse.as<float>()[0],
          .workspace = workspace},
         stream);
    Fp8Gemm({.a = a.codes,
             .b = b.codes,
             .a_inverse = a.inverse,
             .b_inverse = b.inverse,
             .c = c,
             .transpose_b = true,
             .widened = dtype,
             .workspace = workspace},
            stream);
    EXPECT_EQ(c.Bytes(), expected.Bytes());
  }
}

TEST_P(Fp8GemmTest, SameBitsForAnyThreadCount) {
  testing::ExpectSameBitsForAnyThreadCount(
      [&](Stream& stream) { return Run({}, DType::kBF16, {.beta = 1}, stream).Bytes(); });
}

INSTANTIATE_TEST_SUITE_P(All, Fp8GemmTest,
                         ::testing::Values(Fp8Case{DType::kF8E4M3, DType::kF8E4M3, 1, 1, 1},
                                           Fp8Case{DType::kF8E4M3, DType::kF8E4M3, 65, 33, 70},
                                           Fp8Case{DType::kF8E5M2, DType::kF8E4M3, 48, 80, 64},
                                           Fp8Case{DType::kF8E4M3, DType::kF8E5M2, 7, 130, 48},
                                           Fp8Case{DType::kF8E5M2, DType::kF8E5M2, 64, 64, 32},
                                           Fp8Case{DType::kF8E4M3, DType::kF8E4M3, 3, 5, 0}));

TEST(Fp8GemmEdgeTest, TransposesCodesForTheLibrary) {
  if (testing::DeviceUnderTest() == Device::kCpu) GTEST_SKIP() << "a kernel of CUDA devices";
  testing::TestStream stream(1);
  for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{1, 1}, {64, 64}, {3, 130}, {129, 65}}) {
    const HostTensor x(DType::kU8, {rows, cols}), y(DType::kU8, {cols, rows});
    std::vector<uint8_t> expected(static_cast<size_t>(rows * cols));
    for (int64_t i = 0; i < rows * cols; ++i) {
      x.as<uint8_t>()[i] = static_cast<uint8_t>(i * 37 % 251);
      expected[static_cast<size_t>(i % cols * rows + i / cols)] = static_cast<uint8_t>(i * 37 % 251);
    }
    internal::Fp8TransposeBytes(x, y.as<uint8_t>(), stream);
    EXPECT_EQ(y.Bytes(), expected) << rows << " x " << cols;
  }
}

// beta 0 must not read c, and a NaN code must not be lost.
TEST(Fp8GemmEdgeTest, KeepsNanOfCodesAndIgnoresThatOfC) {
  testing::TestStream stream(1);
  const HostTensor a(DType::kF8E4M3, {2, 16});
  const HostTensor b(DType::kF8E4M3, {16, 16});
  for (int64_t i = 0; i < 16 * 16; ++i) b.as<Float8E4M3>()[i].bits = 0x38;  // 1
  for (int64_t i = 0; i < 16; ++i) a.as<Float8E4M3>()[i].bits = 0x40;       // 2
  a.as<Float8E4M3>()[16].bits = 0x7F;
  const HostTensor one = HostTensor::Filled(DType::kF32, {1}, 1);
  const HostTensor c = HostTensor::Filled(DType::kF32, {2, 16}, std::nan(""));
  const HostTensor workspace(DType::kU8, {Fp8GemmWorkspaceBytes(DType::kBF16, 2, 16, 16)});
  Fp8Gemm({.a = a, .b = b, .a_inverse = one, .b_inverse = one, .c = c, .transpose_b = true, .workspace = workspace},
          stream);
  const std::vector<double> values = c.ToDoubles();
  for (size_t j = 0; j < 16; ++j) {
    EXPECT_EQ(values[j], 32.0);
    EXPECT_TRUE(std::isnan(values[16 + j]));
  }
}

}  // namespace
}  // namespace trainyard::kernels
