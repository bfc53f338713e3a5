// That a scheme which asks for it is given the largest magnitudes of its inputs, and that this changes no bit.
#include <set>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/quant/abs_max.h"
#include "kernels/testing/host_tensor.h"
#include "worker/model/testing/reference_network.h"
#include "worker/model/testing/test_network.h"

namespace trainyard::model {
namespace {

using kernels::DType;
using kernels::Stream;
using kernels::TensorView;
using kernels::testing::HostTensor;
using testing::TestNetwork;
using testing::ToDoubles;

// Computes dense layers and compares what it is told with what AbsMax finds, at all sites but one.
class CheckingScheme final : public linear::LinearScheme {
 public:
  absl::string_view name() const override { return "checking"; }
  int64_t WorkspaceBytes(const linear::LinearSite& site) const override { return dense_->WorkspaceBytes(site); }
  bool UsesAmax(const linear::LinearSite& site) const override { return site.name != "layers.0.down"; }

  void Forward(const linear::LinearCall& call, const kernels::LinearForwardArgs& args, Stream& stream) const override {
    Check(call.site, call.x_amax, args.x, stream);
    EXPECT_FALSE(call.dy_amax);
    forwards_.insert(call.site.name);
    dense_->Forward(call, args, stream);
  }
  void Backward(const linear::LinearCall& call, const linear::LinearBackwardArgs& args, Stream& stream) const override {
    Check(call.site, call.x_amax, args.x, stream);
    if (UsesAmax(call.site)) Check(call.site, call.dy_amax, args.dy, stream);
    backwards_.insert(call.site.name);
    dense_->Backward(call, args, stream);
  }

  const std::set<std::string>& forwards() const { return forwards_; }
  const std::set<std::string>& backwards() const { return backwards_; }

 private:
  void Check(const linear::LinearSite& site, const TensorView& amax, const TensorView& x, Stream& stream) const {
    ASSERT_EQ(static_cast<bool>(amax), UsesAmax(site)) << site.name;
    if (!amax) return;
    const HostTensor expected(DType::kF32, {1});
    AbsMax({.x = x, .y = expected}, stream);
    EXPECT_GT(amax.as<float>()[0], 0) << site.name;
    EXPECT_EQ(amax.as<float>()[0], expected.as<float>()[0]) << site.name;
  }

  const std::unique_ptr<linear::LinearScheme> dense_ = linear::MakeFp32Scheme();
  mutable std::set<std::string> forwards_, backwards_;
};

std::vector<double> Values(TestNetwork& test) {
  test.network->ForwardBackward({}, test.stream);
  test.network->ForwardBackward({.accumulate = true}, test.stream);
  std::vector<double> values = ToDoubles(test.gradients.flat);
  const std::vector<double> losses = ToDoubles(test.network->losses());
  values.insert(values.end(), losses.begin(), losses.end());
  return values;
}

TEST(NetworkAmaxTest, OfEveryInputAndGradientOfALayer) {
  for (const ModelConfig& config : {testing::TinyQwen2(), testing::TinyPruned(), testing::TinyPrunedEnds()}) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      for (const bool recompute : {false, true}) {
        const NetworkOptions options{.batch = 2, .seq = 9, .dtype = dtype, .recompute_blocks = recompute, .threads = 2};
        TestNetwork plain(config, options);
        auto scheme = std::make_unique<CheckingScheme>();
        const CheckingScheme& checking = *scheme;
        TestNetwork test(config, options, /*seed=*/1, /*as_initialized=*/false, std::move(scheme));
        EXPECT_EQ(Values(test), Values(plain));
        std::set<std::string> sites;
        ForEachSite(ListLinearSites(config, 18, dtype),
                    [&](const linear::LinearSite& site) { sites.insert(site.name); });
        EXPECT_EQ(checking.forwards(), sites);
        EXPECT_EQ(checking.backwards(), sites);
      }
    }
  }
}

}  // namespace
}  // namespace trainyard::model
