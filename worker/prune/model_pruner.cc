#include "worker/prune/model_pruner.h"

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "kernels/core/arena.h"
#include "worker/linear/linear_scheme.h"
#include "worker/model/network.h"

namespace trainyard::prune {
namespace {

using kernels::TensorView;

// The parts of one site's matrix.
class MatrixPruner {
 public:
  MatrixPruner(const OneShotOptions& options, const std::vector<model::Parameter>& parameters)
      : options_(options), parameters_(parameters) {}

  // `x`: f32 (rows, in), absent for magnitude.
  absl::Status Prune(const std::string& site, const TensorView& x, const TensorView& w, kernels::Stream& stream) {
    const model::Parameter& parameter = ParameterOf(site);
    InputMoments moments(w.dim(1), options_.method == Method::kSparseGpt);
    if (options_.method != Method::kMagnitude) moments.Add(x, stream);
    for (const model::HuggingFacePart& part : parameter.parts) {
      PrunedMatrix matrix{part.name, part.rows, w.dim(1), {}};
      const absl::Status status =
          PruneMatrix(options_, moments, w.Slice(part.row_begin, part.rows), &matrix.kept, stream);
      if (!status.ok()) return absl::Status(status.code(), absl::StrCat(part.name, ": ", status.message()));
      pruned_.push_back(std::move(matrix));
    }
    return absl::OkStatus();
  }

  std::vector<PrunedMatrix> TakePruned() { return std::move(pruned_); }

 private:
  const model::Parameter& ParameterOf(const std::string& site) const {
    for (const model::Parameter& parameter : parameters_) {
      if (parameter.name == site + ".weight") return parameter;
    }
    TY_CHECK(false && "a site without a parameter");
    return parameters_.front();
  }

  const OneShotOptions options_;
  const std::vector<model::Parameter>& parameters_;
  std::vector<PrunedMatrix> pruned_;
};

// Prunes the weights it is about to use.
class PruningScheme final : public linear::LinearScheme {
 public:
  PruningScheme(MatrixPruner* pruner, absl::Status* status) : pruner_(pruner), status_(status) {}
  absl::string_view name() const override { return "prune"; }
  int64_t WorkspaceBytes(const linear::LinearSite& site) const override { return inner_->WorkspaceBytes(site); }
  void Forward(const linear::LinearCall& call, const kernels::LinearForwardArgs& args,
               kernels::Stream& stream) const override {
    if (status_->ok()) *status_ = pruner_->Prune(call.site.name, args.x, args.w, stream);
    inner_->Forward(call, args, stream);
  }
  void Backward(const linear::LinearCall&, const linear::LinearBackwardArgs&, kernels::Stream&) const override {
    TY_CHECK(false && "a forward only");
  }

 private:
  MatrixPruner* const pruner_;
  absl::Status* const status_;
  const std::unique_ptr<linear::LinearScheme> inner_ = linear::MakeFp32Scheme();
};

bool IsPruned(const model::ModelConfig& config, const model::Parameter& parameter) {
  return parameter.is_matrix() && parameter.layer >= 1 && parameter.layer <= config.layers;
}

absl::Status Check(const model::ModelConfig& config, const OneShotOptions& options, const Calibration& calibration) {
  if (options.method != Method::kMagnitude && calibration.sequences * calibration.sequence_length == 0) {
    return absl::InvalidArgumentError("this method needs calibration data");
  }
  if (options.group == 0) return absl::OkStatus();
  for (const model::Parameter& parameter : ListParameters(config)) {
    if (IsPruned(config, parameter) && parameter.shape[1] % options.group != 0) {
      return absl::InvalidArgumentError(absl::StrCat(parameter.parts.front().name, ": rows of ", parameter.shape[1],
                                                     " elements are no multiple of ", options.group));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<PrunedMatrix>> PruneModel(const model::ModelConfig& config,
                                                     const model::NetworkTensors& weights,
                                                     const OneShotOptions& options, const Calibration& calibration,
                                                     kernels::Stream& stream) {
  TY_RETURN_IF_ERROR(Check(config, options, calibration));
  const std::vector<model::Parameter> parameters = ListParameters(config);
  MatrixPruner pruner(options, parameters);
  if (options.method == Method::kMagnitude) {
    for (size_t i = 0; i < parameters.size(); ++i) {
      if (!IsPruned(config, parameters[i])) continue;
      const std::string& name = parameters[i].name;
      TY_RETURN_IF_ERROR(
          pruner.Prune(name.substr(0, name.size() - sizeof("weight")), TensorView(), weights.all[i], stream));
    }
    return pruner.TakePruned();
  }

  absl::Status status;
  const PruningScheme scheme(&pruner, &status);
  const model::NetworkOptions network_options{
      .batch = calibration.sequences,
      .seq = calibration.sequence_length,
      .head_chunks = 1024,  // the logits of so many tokens at once are not needed
      .threads = stream.threads(),
  };
  kernels::Arena counting = kernels::Arena::CountOnly();
  model::Network(config, network_options, &scheme, &weights, nullptr, counting);
  TY_ASSIGN_OR_RETURN(kernels::Arena arena, kernels::Arena::Reserve(counting.used_bytes()));
  model::Network network(config, network_options, &scheme, &weights, nullptr, arena);
  network.Prepare(stream);
  TY_RETURN_IF_ERROR(calibration.load(network.tokens(), network.targets()));
  network.Forward(stream);
  TY_RETURN_IF_ERROR(status);
  return pruner.TakePruned();
}

}  // namespace trainyard::prune
