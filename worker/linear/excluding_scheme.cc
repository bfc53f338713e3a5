#include "worker/linear/excluding_scheme.h"

#include <utility>

#include "base/pattern.h"

namespace trainyard::linear {
namespace {

class ExcludingScheme final : public LinearScheme {
 public:
  ExcludingScheme(std::unique_ptr<LinearScheme> scheme, std::vector<std::string> patterns)
      : scheme_(std::move(scheme)), patterns_(std::move(patterns)) {}

  absl::string_view name() const override { return scheme_->name(); }
  int64_t ParameterCount() const override { return scheme_->ParameterCount(); }
  bool UsesAmax(const LinearSite& site) const override { return Of(site).UsesAmax(site); }
  int64_t WorkspaceBytes(const LinearSite& site) const override { return Of(site).WorkspaceBytes(site); }
  void Forward(const LinearCall& call, const kernels::LinearForwardArgs& args, kernels::Stream& stream) const override {
    Of(call.site).Forward(call, args, stream);
  }
  void Backward(const LinearCall& call, const LinearBackwardArgs& args, kernels::Stream& stream) const override {
    Of(call.site).Backward(call, args, stream);
  }

 private:
  const LinearScheme& Of(const LinearSite& site) const { return MatchesAny(patterns_, site.name) ? *dense_ : *scheme_; }

  const std::unique_ptr<LinearScheme> scheme_;
  const std::vector<std::string> patterns_;
  const std::unique_ptr<LinearScheme> dense_ = MakeFp32Scheme();
};

}  // namespace

std::unique_ptr<LinearScheme> MakeExcludingScheme(std::unique_ptr<LinearScheme> scheme,
                                                  std::vector<std::string> patterns) {
  return std::make_unique<ExcludingScheme>(std::move(scheme), std::move(patterns));
}

}  // namespace trainyard::linear
