#include "worker/linear/mask_counting_scheme.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/pattern.h"

namespace trainyard::linear {
namespace {

using kernels::Stream;

class CountingScheme final : public MaskCountingScheme {
 public:
  CountingScheme(std::unique_ptr<LinearScheme> scheme, std::unique_ptr<MaskProbe> probe,
                 std::vector<std::string> exclude)
      : scheme_(std::move(scheme)), probe_(std::move(probe)), exclude_(std::move(exclude)) {}

  absl::string_view name() const override { return scheme_->name(); }
  int64_t ParameterCount() const override { return scheme_->ParameterCount(); }
  bool UsesAmax(const LinearSite& site) const override { return scheme_->UsesAmax(site); }
  int64_t WorkspaceBytes(const LinearSite& site) const override {
    const int64_t bytes = scheme_->WorkspaceBytes(site);
    return HasMasks(site) ? std::max(bytes, probe_->ProbeBytes(site)) : bytes;
  }

  void Forward(const LinearCall& call, const kernels::LinearForwardArgs& args, Stream& stream) const override {
    scheme_->Forward(call, args, stream);
    if (!is_counting_ || !HasMasks(call.site)) return;
    const LayerMasks masks = probe_->Probe(call, args.x, args.w, args.workspace, stream);
    LayerMasks& sum = IsAttention(call.site) ? attention_ : mlp_;
    sum.inputs.Add(masks.inputs);
    sum.weights.Add(masks.weights);
  }
  void Backward(const LinearCall& call, const LinearBackwardArgs& args, Stream& stream) const override {
    scheme_->Backward(call, args, stream);
  }

  void StartCounting() override {
    attention_ = mlp_ = {};
    is_counting_ = true;
  }
  void StopCounting() override { is_counting_ = false; }

  void AddMetrics(std::map<std::string, double>* metrics) const override {
    const auto add = [metrics](const char* what, const MaskedElements& elements) {
      if (elements.all == 0) return;
      (*metrics)[absl::StrCat("masked_fraction_", what)] =
          static_cast<double>(elements.masked) / static_cast<double>(elements.all);
    };
    add("attention_inputs", attention_.inputs);
    add("attention_weights", attention_.weights);
    add("mlp_inputs", mlp_.inputs);
    add("mlp_weights", mlp_.weights);
  }

 private:
  bool HasMasks(const LinearSite& site) const { return !MatchesAny(exclude_, site.name); }
  static bool IsAttention(const LinearSite& site) {
    return absl::EndsWith(site.name, ".qkv") || absl::EndsWith(site.name, ".output");
  }

  const std::unique_ptr<LinearScheme> scheme_;
  const std::unique_ptr<MaskProbe> probe_;
  const std::vector<std::string> exclude_;
  // A forward of the network is const; what it counts changes nothing that is computed.
  mutable LayerMasks attention_, mlp_;
  bool is_counting_ = false;
};

}  // namespace

std::unique_ptr<MaskCountingScheme> MakeMaskCountingScheme(std::unique_ptr<LinearScheme> scheme,
                                                           std::unique_ptr<MaskProbe> probe,
                                                           std::vector<std::string> exclude) {
  return std::make_unique<CountingScheme>(std::move(scheme), std::move(probe), std::move(exclude));
}

}  // namespace trainyard::linear
