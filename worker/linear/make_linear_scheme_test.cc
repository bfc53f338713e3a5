#include "worker/linear/make_linear_scheme.h"

#include "base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/testing/host_tensor.h"

namespace trainyard::linear {
namespace {

using kernels::DType;
using kernels::Stream;
using kernels::testing::HostTensor;
using ::testing::HasSubstr;

std::vector<double> Forward(const LinearScheme& scheme, const std::string& name) {
  Stream stream(1);
  const LinearSite site{.name = name, .rows = 4, .in = 8, .out = 3};
  const HostTensor x = HostTensor::Normal(DType::kF32, {4, 8}, 1), w = HostTensor::Normal(DType::kF32, {3, 8}, 2);
  const HostTensor y = HostTensor::Filled(DType::kF32, {4, 3}, 9);
  const HostTensor workspace(DType::kU8, {scheme.WorkspaceBytes(site)});
  scheme.Forward({site}, {.x = x, .w = w, .y = y, .workspace = workspace}, stream);
  return y.ToDoubles();
}

// bf16 rounds its operands, so it is told from dense layers by its result.
TEST(MakeLinearSchemeTest, ExcludedSitesComputeAsStored) {
  const std::unique_ptr<LinearScheme> scheme =
      MakeLinearScheme({.scheme = spec::LinearBf16{}, .exclude = {"layers.0.*", "*.down"}});
  const std::vector<double> dense = Forward(*MakeFp32Scheme(), "");
  const std::vector<double> rounded = Forward(*MakeBf16Scheme(), "");
  ASSERT_NE(dense, rounded);
  EXPECT_EQ(scheme->name(), "bf16");
  EXPECT_EQ(Forward(*scheme, "layers.0.qkv"), dense);
  EXPECT_EQ(Forward(*scheme, "layers.1.down"), dense);
  EXPECT_EQ(Forward(*scheme, "layers.1.qkv"), rounded);
}

TEST(MakeLinearSchemeTest, SizesThatAMethodDoesNotDefineAreRefusedByName) {
  const spec::LinearOptions options{.scheme = spec::LinearQuest{.hadamard_dim = 64}, .exclude = {}};
  const LinearSite site{.name = "layers.2.down", .rows = 4, .in = 96, .out = 3};
  EXPECT_THAT(CheckSite(options, site),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("training.linear.quest: inputs of layers.2.down: 96 is not a multiple of 64")));
  spec::LinearOptions excluding = options;
  excluding.exclude = {"*.down"};
  EXPECT_OK(CheckSite(excluding, site));
}

TEST(MakeLinearSchemeTest, RowsAndOutputsMatterToABackwardThatQuantizes) {
  const LinearSite site{.name = "layers.0.qkv", .rows = 96, .in = 128, .out = 64};
  EXPECT_THAT(CheckSite({spec::LinearQuartet2{}, {}}, site),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("64 is not a multiple of 128")));
  EXPECT_OK(CheckSite({spec::LinearQuartet{}, {}}, site));
  EXPECT_OK(CheckSite({spec::LinearQuartet2{.backward_enabled = false}, {}}, site));
}

}  // namespace
}  // namespace trainyard::linear
