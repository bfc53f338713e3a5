#include "worker/linear/coded_weights_scheme.h"

#include <utility>

#include "base/check.h"
#include "worker/linear/scratch.h"

namespace trainyard::linear {
namespace {

using kernels::Stream;
using kernels::TensorView;

class CodedWeightsScheme final : public LinearScheme {
 public:
  CodedWeightsScheme(std::unique_ptr<LinearScheme> scheme, std::vector<kernels::CodedMatrix> weights)
      : scheme_(std::move(scheme)), weights_(std::move(weights)) {}

  absl::string_view name() const override { return scheme_->name(); }
  int64_t ParameterCount() const override { return scheme_->ParameterCount(); }
  bool UsesAmax(const LinearSite& site) const override { return scheme_->UsesAmax(site); }

  int64_t WorkspaceBytes(const LinearSite& site) const override {
    const int64_t decoded = IsCoded(site) ? Scratch::Bytes(site.storage, site.in * site.out) : 0;
    return decoded + scheme_->WorkspaceBytes(site);
  }

  void Forward(const LinearCall& call, const kernels::LinearForwardArgs& args, Stream& stream) const override {
    kernels::LinearForwardArgs decoded = args;
    Decode(call.site, &decoded.w, &decoded.workspace, stream);
    scheme_->Forward(call, decoded, stream);
  }

  void Backward(const LinearCall& call, const LinearBackwardArgs& args, Stream& stream) const override {
    LinearBackwardArgs decoded = args;
    Decode(call.site, &decoded.w, &decoded.workspace, stream);
    scheme_->Backward(call, decoded, stream);
  }

 private:
  bool IsCoded(const LinearSite& site) const {
    return site.index < weights_.size() && static_cast<bool>(weights_[site.index]);
  }

  void Decode(const LinearSite& site, TensorView* w, TensorView* workspace, Stream& stream) const {
    if (*w) return;
    TY_CHECK(IsCoded(site));
    Scratch scratch(*workspace);
    *w = scratch.Take(site.storage, {site.out, site.in});
    *workspace = scratch.Rest();
    DecodeMatrix({.matrix = weights_[site.index], .y = *w}, stream);
  }

  const std::unique_ptr<LinearScheme> scheme_;
  const std::vector<kernels::CodedMatrix> weights_;
};

}  // namespace

std::unique_ptr<LinearScheme> MakeCodedWeightsScheme(std::unique_ptr<LinearScheme> scheme,
                                                     std::vector<kernels::CodedMatrix> weights) {
  return std::make_unique<CodedWeightsScheme>(std::move(scheme), std::move(weights));
}

}  // namespace trainyard::linear
