#include "worker/linear/linear_scheme.h"

#include <algorithm>

#include "base/check.h"
#include "kernels/gemm/gemm.h"
#include "kernels/pointwise/elementwise.h"

namespace trainyard::linear {
namespace {

using kernels::DType;
using kernels::Stream;
using kernels::TensorView;

class Fp32Scheme final : public LinearScheme {
 public:
  absl::string_view name() const override { return "fp32"; }
  int64_t WorkspaceBytes(const LinearSite& site) const override {
    return kernels::LinearWorkspaceBytes(site.storage, site.rows, site.in, site.out);
  }
  void Forward(const kernels::LinearForwardArgs& args, Stream& stream) const override { LinearForward(args, stream); }
  void BackwardInput(const kernels::LinearBackwardInputArgs& args, Stream& stream) const override {
    LinearBackwardInput(args, stream);
  }
  void BackwardWeight(const kernels::LinearBackwardWeightArgs& args, Stream& stream) const override {
    LinearBackwardWeight(args, stream);
  }
};

int64_t RoundUp(int64_t bytes) {
  return (bytes + 63) / 64 * 64;
}

// Takes pieces of one workspace, each aligned to 64 bytes.
class Scratch {
 public:
  explicit Scratch(const TensorView& workspace) : workspace_(workspace) {}

  // The tensor rounded to bf16.
  TensorView Rounded(const TensorView& x, Stream& stream) {
    TensorView rounded(Take(RoundUp(2 * x.size())), DType::kBF16, {x.dim(0), x.dim(1)});
    Convert({.x = x, .y = rounded}, stream);
    return rounded;
  }
  TensorView Rest() {
    const int64_t left = workspace_.bytes() - used_;
    return {Take(left), DType::kU8, {left}};
  }

 private:
  void* Take(int64_t bytes) {
    TY_CHECK_LE(used_ + bytes, workspace_.bytes());
    void* const begin = static_cast<char*>(workspace_.data()) + used_;
    used_ += bytes;
    return begin;
  }

  const TensorView workspace_;
  int64_t used_ = 0;
};

class Bf16Scheme final : public LinearScheme {
 public:
  absl::string_view name() const override { return "bf16"; }

  int64_t WorkspaceBytes(const LinearSite& site) const override {
    if (site.storage == DType::kBF16) return as_stored_.WorkspaceBytes(site);
    const int64_t x = RoundUp(2 * site.rows * site.in);
    const int64_t y = RoundUp(2 * site.rows * site.out);
    const int64_t w = RoundUp(2 * site.in * site.out);
    return std::max({x + w + kernels::GemmWorkspaceBytes(DType::kBF16, site.rows, site.out, site.in),
                     y + w + kernels::GemmWorkspaceBytes(DType::kBF16, site.rows, site.in, site.out),
                     y + x + kernels::GemmWorkspaceBytes(DType::kBF16, site.out, site.in, site.rows)});
  }

  void Forward(const kernels::LinearForwardArgs& args, Stream& stream) const override {
    if (args.x.dtype() == DType::kBF16) return as_stored_.Forward(args, stream);
    Scratch scratch(args.workspace);
    const TensorView x = scratch.Rounded(args.x, stream);
    const TensorView w = scratch.Rounded(args.w, stream);
    Gemm({.a = x, .b = w, .c = args.y, .transpose_b = true, .bias = args.bias, .workspace = scratch.Rest()}, stream);
  }

  void BackwardInput(const kernels::LinearBackwardInputArgs& args, Stream& stream) const override {
    if (args.dy.dtype() == DType::kBF16) return as_stored_.BackwardInput(args, stream);
    Scratch scratch(args.workspace);
    const TensorView dy = scratch.Rounded(args.dy, stream);
    const TensorView w = scratch.Rounded(args.w, stream);
    Gemm({.a = dy, .b = w, .c = args.dx, .beta = args.accumulate ? 1.0f : 0.0f, .workspace = scratch.Rest()}, stream);
  }

  void BackwardWeight(const kernels::LinearBackwardWeightArgs& args, Stream& stream) const override {
    if (args.dy.dtype() == DType::kBF16) return as_stored_.BackwardWeight(args, stream);
    Scratch scratch(args.workspace);
    const TensorView dy = scratch.Rounded(args.dy, stream);
    const TensorView x = scratch.Rounded(args.x, stream);
    Gemm({.a = dy,
          .b = x,
          .c = args.dw,
          .transpose_a = true,
          .beta = args.accumulate ? 1.0f : 0.0f,
          .workspace = scratch.Rest()},
         stream);
    if (args.db) BiasGradient({.dy = args.dy, .db = args.db, .accumulate = args.accumulate}, stream);
  }

 private:
  Fp32Scheme as_stored_;
};

}  // namespace

std::unique_ptr<LinearScheme> MakeFp32Scheme() {
  return std::make_unique<Fp32Scheme>();
}

std::unique_ptr<LinearScheme> MakeBf16Scheme() {
  return std::make_unique<Bf16Scheme>();
}

}  // namespace trainyard::linear
