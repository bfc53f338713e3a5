#include "worker/linear/coded_weights_scheme.h"

#include <vector>

#include "gtest/gtest.h"
#include "kernels/testing/host_tensor.h"

namespace trainyard::linear {
namespace {

using kernels::DType;
using kernels::TensorView;
using kernels::testing::HostTensor;

// The products are those of the inner scheme on the decoded matrix, bit for bit, with scratch of the announced size; a
// layer that is not coded, or a call that has weights, goes through as it is.
TEST(CodedWeightsSchemeTest, ComputesAsTheInnerSchemeOnDecodedWeights) {
  constexpr int64_t kRows = 9, kIn = 32, kOut = 24;
  kernels::Stream stream(2);
  for (const DType storage : {DType::kF32, DType::kBF16}) {
    for (const DType format : {DType::kF8E4M3, DType::kU8}) {
      const HostTensor dense = HostTensor::Normal(storage, {kOut, kIn}, 1, 0.1);
      const HostTensor codes(format, {format == DType::kU8 ? kOut * kIn / 2 : kOut * kIn});
      const HostTensor scales(DType::kF32, {kOut});
      const kernels::CodedMatrix coded{codes, scales};
      EncodeMatrix({.x = dense, .matrix = coded}, stream);
      const HostTensor decoded(storage, {kOut, kIn});
      DecodeMatrix({.matrix = coded, .y = decoded}, stream);

      const auto inner = MakeBf16Scheme();
      const auto scheme = MakeCodedWeightsScheme(MakeBf16Scheme(), {{}, coded});
      EXPECT_EQ(scheme->name(), inner->name());
      LinearSite site{.name = "layers.0.output", .index = 1, .rows = kRows, .in = kIn, .out = kOut, .storage = storage};
      EXPECT_GE(scheme->WorkspaceBytes(site), inner->WorkspaceBytes(site) + decoded.view().bytes());
      const HostTensor scratch(DType::kU8, {scheme->WorkspaceBytes(site)});

      const HostTensor x = HostTensor::Normal(storage, {kRows, kIn}, 2);
      const HostTensor dy = HostTensor::Normal(storage, {kRows, kOut}, 3);
      const auto run = [&](const LinearScheme& with, const TensorView& w) {
        const HostTensor y(storage, {kRows, kOut}), dx(storage, {kRows, kIn}), dw(DType::kF32, {kOut, kIn});
        with.Forward({site}, {.x = x, .w = w, .y = y, .workspace = scratch}, stream);
        with.Backward({site}, {.dy = dy, .x = x, .w = w, .dx = dx, .dw = dw, .workspace = scratch}, stream);
        std::vector<uint8_t> bytes = y.Bytes();
        for (const HostTensor* tensor : {&dx, &dw}) {
          const std::vector<uint8_t> more = tensor->Bytes();
          bytes.insert(bytes.end(), more.begin(), more.end());
        }
        return bytes;
      };
      const TensorView without_data(nullptr, storage, {kOut, kIn});
      EXPECT_EQ(run(*scheme, without_data), run(*inner, decoded));
      EXPECT_EQ(run(*scheme, dense), run(*inner, dense));
      EXPECT_NE(run(*inner, dense), run(*inner, decoded));

      site.index = 0;
      EXPECT_EQ(scheme->WorkspaceBytes(site), inner->WorkspaceBytes(site));
      EXPECT_EQ(run(*scheme, dense), run(*inner, dense));
      site.index = 2;  // beyond the list
      EXPECT_EQ(run(*scheme, dense), run(*inner, dense));
    }
  }
}

}  // namespace
}  // namespace trainyard::linear
