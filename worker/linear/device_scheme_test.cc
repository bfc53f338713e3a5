// Every linear scheme on the device under test: its results are the CPU's, it enqueues its work without waiting for the
// device, and reads nothing on the host that lies there. On the emulated device the guard (kernels/core/simt/guard.h)
// makes a read a SIGSEGV, and waits are counted (kernels/core/simt/waits.h).
#include <cstdlib>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/core/simt/waits.h"
#include "kernels/quant/abs_max.h"
#include "kernels/testing/all_near.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/testing/test_stream.h"
#include "worker/linear/make_linear_scheme.h"

namespace trainyard::linear {
namespace {

using kernels::DType;
using kernels::Stream;
using kernels::TensorView;
using kernels::testing::AllNear;
using kernels::testing::HostTensor;

struct Sizes {
  int64_t rows = 128, in = 128, out = 256;
};

struct SchemeCase {
  std::string name;
  decltype(spec::LinearOptions::scheme) scheme;
  DType storage = DType::kF32;
  Sizes sizes = {};
};

struct Results {
  HostTensor y, dx, dw, db;

  std::vector<uint8_t> Bytes() const {
    std::vector<uint8_t> all;
    for (const HostTensor* tensor : {&y, &dx, &dw, &db}) {
      const std::vector<uint8_t> bytes = tensor->Bytes();
      all.insert(all.end(), bytes.begin(), bytes.end());
    }
    return all;
  }
};

class DeviceSchemeTest : public ::testing::TestWithParam<SchemeCase> {
 protected:
  static void SetUpTestSuite() { setenv("TRAINYARD_SIMT_GUARD", "1", /*overwrite=*/1); }

  // A forward and two backward calls, the second added to the first; with the amax of x and dy given or not.
  Results Run(Stream& stream, bool gives_amax) const {
    const DType storage = GetParam().storage;
    const auto [rows, in, out] = GetParam().sizes;
    const LinearSite site{"layers.0.qkv", 3, rows, in, out, storage};
    Results results{HostTensor::Filled(storage, {rows, out}, 9), HostTensor::Filled(storage, {rows, in}, 9),
                    HostTensor::Filled(DType::kF32, {out, in}, 9), HostTensor::Filled(DType::kF32, {out}, 9)};
    const HostTensor workspace(DType::kU8, {scheme_->WorkspaceBytes(site)});
    const HostTensor amax(DType::kF32, {2});
    LinearCall call{.site = site, .random = {.seed = 7, .step = 2}};
    if (gives_amax) {
      call.x_amax = amax.view().Slice(0, 1);
      call.dy_amax = amax.view().Slice(1, 1);
      AbsMax({.x = x_, .y = call.x_amax}, stream);
      AbsMax({.x = dy_, .y = call.dy_amax}, stream);
    }
    const int64_t waits = simt::WaitCount();
    scheme_->Forward(call, {.x = x_, .w = w_, .bias = bias_, .y = results.y, .workspace = workspace}, stream);
    for (const bool accumulate : {false, true}) {
      scheme_->Backward(call,
                        {.dy = dy_,
                         .x = x_,
                         .w = w_,
                         .dx = results.dx,
                         .dw = results.dw,
                         .db = results.db,
                         .accumulate = accumulate,
                         .workspace = workspace},
                        stream);
    }
    EXPECT_EQ(simt::WaitCount(), waits) << "the scheme waited for the device";
    return results;
  }

  const std::unique_ptr<LinearScheme> scheme_ = MakeLinearScheme({GetParam().scheme, {}});
  const HostTensor x_ = HostTensor::Normal(GetParam().storage, {GetParam().sizes.rows, GetParam().sizes.in}, 1);
  const HostTensor w_ = HostTensor::Normal(GetParam().storage, {GetParam().sizes.out, GetParam().sizes.in}, 2);
  const HostTensor dy_ = HostTensor::Normal(GetParam().storage, {GetParam().sizes.rows, GetParam().sizes.out}, 3);
  const HostTensor bias_ = HostTensor::Normal(GetParam().storage, {GetParam().sizes.out}, 4);
};

TEST_P(DeviceSchemeTest, ResultsAreThoseOfTheCpuWithoutAWait) {
  Stream cpu(1);
  const Results expected = Run(cpu, /*gives_amax=*/false);
  kernels::testing::TestStream stream(1);
  const Results results = Run(stream, /*gives_amax=*/false);
  const auto stored = kernels::testing::ToleranceForSum(GetParam().storage, 256);
  const auto sums = kernels::testing::ToleranceForSum(DType::kF32, 256);
  EXPECT_THAT(results.y.ToDoubles(), AllNear(expected.y.ToDoubles(), stored));
  EXPECT_THAT(results.dx.ToDoubles(), AllNear(expected.dx.ToDoubles(), stored));
  EXPECT_THAT(results.dw.ToDoubles(), AllNear(expected.dw.ToDoubles(), sums));
  EXPECT_THAT(results.db.ToDoubles(), AllNear(expected.db.ToDoubles(), sums));
}

// An amax that somebody has saves a pass and changes no bit.
TEST_P(DeviceSchemeTest, AGivenAmaxChangesNoBit) {
  kernels::testing::TestStream stream(1);
  EXPECT_TRUE(Run(stream, /*gives_amax=*/true).Bytes() == Run(stream, /*gives_amax=*/false).Bytes());
}

std::vector<SchemeCase> Cases() {
  using Quartet2 = spec::LinearQuartet2;
  const spec::LinearFp8 e5m2{.gradient_format = spec::LinearFp8::GradientFormat::kE5M2};
  const Sizes odd{.rows = 29, .in = 37, .out = 21};
  return {{"fp32", spec::LinearFp32{}},
          {"bf16", spec::LinearBf16{}},
          {"fp8", spec::LinearFp8{}},
          {"fp8_of_bf16", spec::LinearFp8{}, DType::kBF16},
          {"fp8_odd", spec::LinearFp8{}, DType::kBF16, odd},
          {"fp8_e5m2_odd", e5m2, DType::kF32, odd},
          {"quest", spec::LinearQuest{}},
          {"quartet", spec::LinearQuartet{}},
          {"quartet2", Quartet2{}},
          {"quartet2_of_bf16", Quartet2{}, DType::kBF16},
          {"nvidia", Quartet2{.recipe = Quartet2::Recipe::kNvidia, .four_over_six = false}},
          {"nvidia_of_bf16", Quartet2{.recipe = Quartet2::Recipe::kNvidia, .four_over_six = false}, DType::kBF16},
          {"tetrajet_v2", Quartet2{.recipe = Quartet2::Recipe::kTetraJetV2, .four_over_six = false}},
          {"forward_only", Quartet2{.backward_enabled = false}},
          {"backward_only", Quartet2{.forward_enabled = false}}};
}

INSTANTIATE_TEST_SUITE_P(All, DeviceSchemeTest, ::testing::ValuesIn(Cases()),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace trainyard::linear
