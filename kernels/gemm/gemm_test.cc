#include "kernels/gemm/gemm.h"

#include <cmath>

#include "gtest/gtest.h"
#include "kernels/gemm/gemm_internal.h"
#include "kernels/gemm/gemm_tuning.h"
#include "kernels/testing/all_near.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/testing/op_case.h"
#include "kernels/testing/test_stream.h"

namespace trainyard::kernels {
namespace internal {

// Only programs with CUDA kernels have it.
__attribute__((weak)) void GemmTiled(const GemmArgs& args, Stream& stream);

}  // namespace internal

namespace {

using testing::AllNear;
using testing::HostTensor;
using testing::OpCase;

// C(m,n) = alpha op(A) op(B) + beta C + bias in double, from the stored values.
struct Problem {
  bool transpose_a = false;
  bool transpose_b = false;
  float alpha = 1;
  float beta = 0;
  bool with_bias = false;
  bool c_is_f32 = false;
  bool with_scales = false;  // 0.75 and -0.5, on the device
};

class GemmRun {
 public:
  GemmRun(const OpCase& op_case, const Problem& problem)
      : problem_(problem),
        m_(op_case.dim(0)),
        n_(op_case.dim(1)),
        k_(op_case.dim(2)),
        a_(HostTensor::Normal(op_case.dtype, Stored(problem.transpose_a, m_, k_), 1)),
        b_(HostTensor::Normal(op_case.dtype, Stored(problem.transpose_b, k_, n_), 2)),
        c_(HostTensor::Normal(problem.c_is_f32 ? DType::kF32 : op_case.dtype, {m_, n_}, 3)),
        bias_(HostTensor::Normal(op_case.dtype, {n_}, 4)),
        a_scale_(HostTensor::Filled(DType::kF32, {1}, 0.75)),
        b_scale_(HostTensor::Filled(DType::kF32, {1}, -0.5)),
        workspace_(DType::kU8, {GemmWorkspaceBytes(op_case.dtype, m_, n_, k_)}) {}

  std::vector<double> Reference() const {
    const std::vector<double> a = a_.ToDoubles();
    const std::vector<double> b = b_.ToDoubles();
    const std::vector<double> bias = bias_.ToDoubles();
    std::vector<double> c = c_.ToDoubles();
    for (int64_t i = 0; i < m_; ++i) {
      for (int64_t j = 0; j < n_; ++j) {
        double sum = 0;
        for (int64_t p = 0; p < k_; ++p) {
          sum += a[static_cast<size_t>(problem_.transpose_a ? p * m_ + i : i * k_ + p)] *
                 b[static_cast<size_t>(problem_.transpose_b ? j * k_ + p : p * n_ + j)];
        }
        double& out = c[static_cast<size_t>(i * n_ + j)];
        out = problem_.alpha * (problem_.with_scales ? -0.375 : 1.0) * sum +
              (problem_.beta == 0 ? 0 : problem_.beta * out);
        if (problem_.with_bias) out += bias[static_cast<size_t>(j)];
      }
    }
    return c;
  }

  // By `gemm`: Gemm, or one of its backends.
  HostTensor Run(Stream& stream, void (*gemm)(const GemmArgs&, Stream&) = Gemm) const {
    HostTensor c = c_.Copy();
    gemm({.a = a_,
          .b = b_,
          .c = c,
          .transpose_a = problem_.transpose_a,
          .transpose_b = problem_.transpose_b,
          .alpha = problem_.alpha,
          .beta = problem_.beta,
          .a_scale = problem_.with_scales ? a_scale_.view() : TensorView(),
          .b_scale = problem_.with_scales ? b_scale_.view() : TensorView(),
          .bias = problem_.with_bias ? bias_.view() : TensorView(),
          .workspace = workspace_},
         stream);
    return c;
  }

 private:
  static std::vector<int64_t> Stored(bool transposed, int64_t rows, int64_t cols) {
    return transposed ? std::vector<int64_t>{cols, rows} : std::vector<int64_t>{rows, cols};
  }

  Problem problem_;
  int64_t m_, n_, k_;
  HostTensor a_, b_, c_, bias_, a_scale_, b_scale_, workspace_;
};

std::vector<Problem> Problems() {
  return {Problem{},
          Problem{.transpose_a = true},
          Problem{.transpose_b = true, .with_bias = true},
          Problem{.transpose_a = true, .transpose_b = true, .alpha = 0.5f, .beta = 1},
          Problem{.beta = -2, .with_bias = true},
          Problem{.transpose_a = true, .beta = 1, .c_is_f32 = true},
          Problem{.with_bias = true, .c_is_f32 = true},
          Problem{.transpose_b = true, .alpha = 0.5f, .with_scales = true},
          Problem{.transpose_a = true, .beta = 1, .with_bias = true, .c_is_f32 = true, .with_scales = true}};
}

::testing::Message Describe(const Problem& problem) {
  return ::testing::Message() << "transposes " << problem.transpose_a << problem.transpose_b << " alpha "
                              << problem.alpha << " beta " << problem.beta << " bias " << problem.with_bias << " f32 c "
                              << problem.c_is_f32 << " scales " << problem.with_scales;
}

class GemmTest : public ::testing::TestWithParam<OpCase> {};

TEST_P(GemmTest, MatchesDoubleReference) {
  testing::TestStream stream(2);
  for (const Problem& problem : Problems()) {
    SCOPED_TRACE(Describe(problem));
    const GemmRun run(GetParam(), problem);
    const HostTensor c = run.Run(stream);
    EXPECT_THAT(c.ToDoubles(), AllNear(run.Reference(), testing::ToleranceForSum(c.view().dtype(), GetParam().dim(2))));
  }
}

// Whatever computes a product: the CPU's BLAS library, on a device the kernel of our own and cuBLASLt under both rules
// of choice (on the emulated device Gemm is that kernel).
TEST_P(GemmTest, EveryBackendAndTuningAgreesWithTheCpusLibrary) {
  testing::TestStream stream(1);
  Stream cpu(1);
  const GemmTuning before = CurrentGemmTuning();
  for (const Problem& problem : Problems()) {
    SCOPED_TRACE(Describe(problem));
    const GemmRun run(GetParam(), problem);
    const HostTensor library = run.Run(cpu);
    const testing::Tolerance tolerance = testing::ToleranceForSum(library.view().dtype(), GetParam().dim(2));
    for (const GemmTuning tuning : {GemmTuning::kFirst, GemmTuning::kMeasured}) {
      SetGemmTuning(tuning);
      const HostTensor c = run.Run(stream);
      EXPECT_THAT(c.ToDoubles(), AllNear(library.ToDoubles(), tolerance));
      if (stream.device() == Device::kCpu) {
        EXPECT_EQ(c.Bytes(), library.Bytes());
      }
      // A plan is kept: the second call has the bits of the first.
      EXPECT_EQ(run.Run(stream).Bytes(), c.Bytes());
    }
    if (stream.device() == Device::kCpu) continue;
    EXPECT_THAT(run.Run(stream, internal::GemmTiled).ToDoubles(), AllNear(library.ToDoubles(), tolerance));
  }
  SetGemmTuning(before);
}

TEST_P(GemmTest, SameBitsForAnyThreadCount) {
  const GemmRun run(GetParam(), {.transpose_b = true, .with_bias = true});
  testing::ExpectSameBitsForAnyThreadCount([&](Stream& stream) { return run.Run(stream).Bytes(); });
}

INSTANTIATE_TEST_SUITE_P(All, GemmTest,
                         ::testing::ValuesIn(testing::OpCases({{1, 1, 1},
                                                               {1, 7, 3},
                                                               {3, 1, 5},
                                                               {5, 33, 129},
                                                               {1, 300, 64},
                                                               {4, 257, 100},
                                                               {65, 64, 1},
                                                               {2, 3, 0},
                                                               {530, 40, 20},
                                                               {17, 1100, 8}})),
                         testing::OpCaseName);

// More than one panel in each direction; the depth steps accumulate in f32 and round once.
TEST(GemmPanelTest, Bf16BeyondOnePanel) {
  testing::TestStream stream(2);
  for (const auto& shape : {std::vector<int64_t>{2050, 3, 9}, {3, 2051, 9}, {2, 3, 8200}, {2049, 2049, 2}}) {
    for (const bool transposed : {false, true}) {
      const GemmRun run({DType::kBF16, shape}, {.transpose_a = transposed, .transpose_b = !transposed, .beta = 1});
      EXPECT_THAT(run.Run(stream).ToDoubles(),
                  AllNear(run.Reference(), testing::ToleranceForSum(DType::kBF16, shape[2])));
    }
  }
}

TEST(GemmPanelTest, SameBitsForAnyThreadCountWithManyTiles) {
  const GemmRun run({DType::kF32, {1100, 2100, 37}}, {});
  testing::ExpectSameBitsForAnyThreadCount([&](Stream& stream) { return run.Run(stream).Bytes(); });
}

// beta 0 must not read c: memory fresh from a planner may hold NaN.
TEST(GemmPanelTest, BetaZeroIgnoresNan) {
  testing::TestStream stream(1);
  for (DType dtype : {DType::kF32, DType::kBF16}) {
    const HostTensor a = HostTensor::Filled(dtype, {2, 3}, 1);
    const HostTensor b = HostTensor::Filled(dtype, {3, 2}, 2);
    const HostTensor c = HostTensor::Filled(dtype, {2, 2}, std::nan(""));
    const HostTensor workspace(DType::kU8, {GemmWorkspaceBytes(dtype, 2, 2, 3)});
    Gemm({.a = a, .b = b, .c = c, .workspace = workspace}, stream);
    EXPECT_EQ(c.ToDoubles(), std::vector<double>(4, 6.0));
  }
}

TEST(GemmPanelTest, WorkspaceStaysBoundedForVocabularies) {
  EXPECT_EQ(GemmWorkspaceBytes(DType::kF32, 4096, 128000, 4096), 0);
  EXPECT_LE(GemmWorkspaceBytes(DType::kBF16, 128000, 128000, 128000), 100 << 20);
}

}  // namespace
}  // namespace trainyard::kernels
