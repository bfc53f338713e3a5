#include "worker/linear/linear_scheme.h"

#include <algorithm>

#include "kernels/gemm/gemm.h"
#include "kernels/pointwise/elementwise.h"
#include "worker/linear/scratch.h"

namespace trainyard::linear {
namespace {

using kernels::DType;
using kernels::Stream;
using kernels::TensorView;

// The two products of a dense backward.
void DenseBackward(const LinearBackwardArgs& args, Stream& stream) {
  LinearBackwardWeight({.dy = args.dy,
                        .x = args.x,
                        .dw = args.dw,
                        .db = args.db,
                        .accumulate = args.accumulate,
                        .workspace = args.workspace},
                       stream);
  LinearBackwardInput({.dy = args.dy, .w = args.w, .dx = args.dx, .workspace = args.workspace}, stream);
}

class Fp32Scheme final : public LinearScheme {
 public:
  absl::string_view name() const override { return "fp32"; }
  int64_t WorkspaceBytes(const LinearSite& site) const override {
    return kernels::LinearWorkspaceBytes(site.storage, site.rows, site.in, site.out);
  }
  void Forward(const LinearCall& /*call*/, const kernels::LinearForwardArgs& args, Stream& stream) const override {
    LinearForward(args, stream);
  }
  void Backward(const LinearCall& /*call*/, const LinearBackwardArgs& args, Stream& stream) const override {
    DenseBackward(args, stream);
  }
};

// The tensor rounded to bf16.
TensorView Rounded(const TensorView& x, Scratch& scratch, Stream& stream) {
  const TensorView rounded = scratch.Take(DType::kBF16, {x.dim(0), x.dim(1)});
  Convert({.x = x, .y = rounded}, stream);
  return rounded;
}

class Bf16Scheme final : public LinearScheme {
 public:
  absl::string_view name() const override { return "bf16"; }

  int64_t WorkspaceBytes(const LinearSite& site) const override {
    if (site.storage == DType::kBF16) return as_stored_.WorkspaceBytes(site);
    const int64_t x = Scratch::Bytes(DType::kBF16, site.rows * site.in);
    const int64_t y = Scratch::Bytes(DType::kBF16, site.rows * site.out);
    const int64_t w = Scratch::Bytes(DType::kBF16, site.in * site.out);
    return x + y + w +
           std::max({kernels::GemmWorkspaceBytes(DType::kBF16, site.rows, site.out, site.in),
                     kernels::GemmWorkspaceBytes(DType::kBF16, site.rows, site.in, site.out),
                     kernels::GemmWorkspaceBytes(DType::kBF16, site.out, site.in, site.rows)});
  }

  void Forward(const LinearCall& call, const kernels::LinearForwardArgs& args, Stream& stream) const override {
    if (args.x.dtype() == DType::kBF16) return as_stored_.Forward(call, args, stream);
    Scratch scratch(args.workspace);
    const TensorView x = Rounded(args.x, scratch, stream);
    const TensorView w = Rounded(args.w, scratch, stream);
    Gemm({.a = x, .b = w, .c = args.y, .transpose_b = true, .bias = args.bias, .workspace = scratch.Rest()}, stream);
  }

  void Backward(const LinearCall& call, const LinearBackwardArgs& args, Stream& stream) const override {
    if (args.dy.dtype() == DType::kBF16) return as_stored_.Backward(call, args, stream);
    Scratch scratch(args.workspace);
    const TensorView dy = Rounded(args.dy, scratch, stream);
    const TensorView x = Rounded(args.x, scratch, stream);
    const TensorView w = Rounded(args.w, scratch, stream);
    const TensorView rest = scratch.Rest();
    Gemm({.a = dy, .b = x, .c = args.dw, .transpose_a = true, .beta = args.accumulate ? 1.0f : 0.0f, .workspace = rest},
         stream);
    if (args.db) BiasGradient({.dy = args.dy, .db = args.db, .accumulate = args.accumulate}, stream);
    Gemm({.a = dy, .b = w, .c = args.dx, .workspace = rest}, stream);
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
