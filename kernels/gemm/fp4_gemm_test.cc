#include "kernels/gemm/fp4_gemm.h"

#include <set>

#include "gtest/gtest.h"
#include "kernels/gemm/fp4_gemm_internal.h"
#include "kernels/gemm/gemm_tuning.h"
#include "kernels/quant/abs_max.h"
#include "kernels/quant/mxfp4.h"
#include "kernels/quant/nvfp4.h"
#include "kernels/testing/all_near.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/testing/op_case.h"
#include "kernels/testing/test_stream.h"

namespace trainyard::kernels {
namespace internal {

// Only programs with CUDA kernels have it.
__attribute__((weak)) void Fp4GemmTiled(const Fp4GemmArgs& args, Stream& stream);

}  // namespace internal

namespace {

using testing::AllNear;
using testing::HostTensor;

struct Fp4Case {
  bool nv;
  int64_t m, n, k;
};

// Quantized normal numbers and the values that their codes stand for, without the tensor's scale.
struct Operand {
  Operand(bool nv, int64_t rows, int64_t depth, uint64_t seed)
      : packed(DType::kU8, {rows, depth / 2}),
        scales(nv ? DType::kF8E4M3 : DType::kU8, {rows, depth / (nv ? 16 : 32)}),
        tensor_scale(HostTensor::Filled(DType::kF32, {1}, 1)),
        values(DType::kF32, {rows, depth}),
        is_nv(nv) {
    Stream stream(1);
    const HostTensor x = HostTensor::Normal(DType::kF32, {rows, depth}, seed);
    if (nv) {
      const HostTensor amax(DType::kF32, {1});
      AbsMax({.x = x, .y = amax}, stream);
      NvQuantize({.x = x,
                  .amax = amax,
                  .format = {},
                  .tensor_scale = tensor_scale,
                  .packed = packed,
                  .scales = scales,
                  .values = values},
                 stream);
    } else {
      MxQuantize({.v = x, .format = {}, .packed = packed, .scales = scales, .values = values}, stream);
    }
  }
  Fp4Matrix view() const {
    return {.packed = packed, .scales = scales, .tensor_scale = is_nv ? tensor_scale.view() : TensorView()};
  }
  HostTensor packed, scales, tensor_scale, values;
  bool is_nv;
};

class Fp4GemmTest : public ::testing::TestWithParam<Fp4Case> {
 protected:
  HostTensor Run(DType c_type, float alpha, float beta, const TensorView& bias, Stream& stream,
                 void (*gemm)(const Fp4GemmArgs&, Stream&) = Fp4Gemm) const {
    HostTensor c = HostTensor::Normal(c_type, {case_.m, case_.n}, 3);
    const bool on_cpu = stream.device() == Device::kCpu;
    const HostTensor workspace(DType::kU8, {on_cpu ? Fp4GemmWorkspaceBytes(case_.m, case_.n, case_.k)
                                                   : Fp4GemmDeviceWorkspaceBytes(case_.m, case_.n, case_.k)});
    gemm({.a = a_.view(), .b = b_.view(), .c = c, .alpha = alpha, .beta = beta, .bias = bias, .workspace = workspace},
         stream);
    return c;
  }

  std::vector<double> Reference(DType c_type, double alpha, double beta, const std::vector<double>& bias) const {
    const std::vector<double> a = a_.values.ToDoubles();
    const std::vector<double> b = b_.values.ToDoubles();
    const double factor = alpha * a_.tensor_scale.ToDoubles()[0] * b_.tensor_scale.ToDoubles()[0];
    std::vector<double> c = HostTensor::Normal(c_type, {case_.m, case_.n}, 3).ToDoubles();
    for (int64_t i = 0; i < case_.m; ++i) {
      for (int64_t j = 0; j < case_.n; ++j) {
        double sum = 0;
        for (int64_t p = 0; p < case_.k; ++p) {
          sum += a[static_cast<size_t>(i * case_.k + p)] * b[static_cast<size_t>(j * case_.k + p)];
        }
        double& out = c[static_cast<size_t>(i * case_.n + j)];
        out = factor * sum + beta * out;
        if (!bias.empty()) out += bias[static_cast<size_t>(j)];
      }
    }
    return c;
  }

  const Fp4Case case_ = GetParam();
  const Operand a_{case_.nv, case_.m, case_.k, 1};
  const Operand b_{case_.nv, case_.n, case_.k, 2};
};

TEST_P(Fp4GemmTest, MatchesDoubleReference) {
  testing::TestStream stream(2);
  for (const DType c_type : {DType::kF32, DType::kBF16}) {
    const HostTensor bias = HostTensor::Normal(c_type, {case_.n}, 4);
    const testing::Tolerance tolerance = testing::ToleranceForSum(c_type, case_.k);
    EXPECT_THAT(Run(c_type, 1, 0, {}, stream).ToDoubles(), AllNear(Reference(c_type, 1, 0, {}), tolerance));
    EXPECT_THAT(Run(c_type, 0.5f, 1, bias, stream).ToDoubles(),
                AllNear(Reference(c_type, 0.5, 1, bias.ToDoubles()), tolerance));
  }
}

// As gemm_test.cc has it for Gemm.
TEST_P(Fp4GemmTest, EveryBackendAndTuningAgreesWithTheCpusLibrary) {
  testing::TestStream stream(1);
  Stream cpu(1);
  const GemmTuning before = CurrentGemmTuning();
  for (const DType c_type : {DType::kF32, DType::kBF16}) {
    const HostTensor bias = HostTensor::Normal(c_type, {case_.n}, 4);
    const testing::Tolerance tolerance = testing::ToleranceForSum(c_type, case_.k);
    const std::vector<double> library = Run(c_type, 0.5f, 1, bias, cpu).ToDoubles();
    for (const GemmTuning tuning : {GemmTuning::kFirst, GemmTuning::kMeasured}) {
      SetGemmTuning(tuning);
      EXPECT_THAT(Run(c_type, 0.5f, 1, bias, stream).ToDoubles(), AllNear(library, tolerance));
    }
    if (stream.device() == Device::kCpu) continue;
    EXPECT_THAT(Run(c_type, 0.5f, 1, bias, stream, internal::Fp4GemmTiled).ToDoubles(), AllNear(library, tolerance));
  }
  SetGemmTuning(before);
}

TEST_P(Fp4GemmTest, SameBitsForAnyThreadCount) {
  testing::ExpectSameBitsForAnyThreadCount([&](Stream& stream) { return Run(DType::kBF16, 1, 1, {}, stream).Bytes(); });
}

INSTANTIATE_TEST_SUITE_P(All, Fp4GemmTest,
                         ::testing::Values(Fp4Case{true, 1, 1, 16}, Fp4Case{true, 65, 33, 80},
                                           Fp4Case{true, 8, 70, 128}, Fp4Case{false, 1, 1, 32},
                                           Fp4Case{false, 33, 65, 96}, Fp4Case{false, 70, 8, 128}));

// The layout that cuBLASLt reads: every scale has a place of its own inside the tiles; rows 0, 32, 64, 96 of a group
// are neighbours of four, and so on up the tile.
TEST(Fp4ScaleTilesTest, PlacesAreThoseOfTheLibrary) {
  using internal::ScaleTileOffset;
  EXPECT_EQ(ScaleTileOffset(0, 1, 8), 1);
  EXPECT_EQ(ScaleTileOffset(32, 0, 8), 4);
  EXPECT_EQ(ScaleTileOffset(1, 0, 8), 16);
  EXPECT_EQ(ScaleTileOffset(127, 3, 8), 511);
  EXPECT_EQ(ScaleTileOffset(0, 4, 8), 512);
  EXPECT_EQ(ScaleTileOffset(128, 0, 8), 1024);
  EXPECT_EQ(internal::ScaleTileBytes(129, 5), 2 * 2 * 512);
  std::set<int64_t> places;
  for (int64_t row = 0; row < 256; ++row) {
    for (int64_t group = 0; group < 8; ++group) places.insert(ScaleTileOffset(row, group, 6));
  }
  EXPECT_EQ(places.size(), 2048u);
  EXPECT_EQ(*places.rbegin(), 2047);
}

TEST(Fp4ScaleTilesTest, ScalesGoThereAndZerosElsewhere) {
  testing::TestStream stream(1);
  constexpr int64_t kRows = 130, kGroups = 6;
  const HostTensor scales(DType::kU8, {kRows, kGroups});
  for (int64_t i = 0; i < kRows * kGroups; ++i) scales.as<uint8_t>()[i] = static_cast<uint8_t>(1 + i % 251);
  const int64_t bytes = internal::ScaleTileBytes(kRows, kGroups);
  const HostTensor tiles(DType::kU8, {bytes});
  for (int64_t i = 0; i < bytes; ++i) tiles.as<uint8_t>()[i] = 99;
  internal::TileScales(scales, tiles.as<uint8_t>(), stream);
  std::vector<uint8_t> expected(static_cast<size_t>(bytes), 0);
  for (int64_t i = 0; i < kRows * kGroups; ++i) {
    expected[static_cast<size_t>(internal::ScaleTileOffset(i / kGroups, i % kGroups, kGroups))] =
        static_cast<uint8_t>(1 + i % 251);
  }
  EXPECT_EQ(tiles.Bytes(), expected);
}

}  // namespace
}  // namespace trainyard::kernels
