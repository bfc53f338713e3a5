#include "worker/optim/elsa/elsa_optimizer.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "kernels/core/dispatch.h"
#include "kernels/optim/adamw.h"
#include "kernels/optim/blockwise/adamw_int8.h"
#include "kernels/prune/admm_prox.h"
#include "kernels/prune/admm_state.h"
#include "kernels/prune/mask.h"
#include "kernels/prune/prune_select.h"
#include "worker/optim/elsa/elsa_penalty.h"
#include "worker/optim/elsa/elsa_tensors.h"

namespace trainyard::optim {
namespace {

using kernels::Arena;
using kernels::DType;
using kernels::PruneScore;
using kernels::Stream;
using kernels::TensorView;
using spec::ElsaOptions;

int GroupOf(ElsaOptions::Pattern pattern) {
  switch (pattern) {
    case ElsaOptions::Pattern::kUnstructured:
      return 1;
    case ElsaOptions::Pattern::k2To4:
      return 4;
    case ElsaOptions::Pattern::k4To8:
      return 8;
  }
  return 1;
}

class ElsaOptimizer final : public Optimizer {
 public:
  ElsaOptimizer(const ElsaOptions& options, const std::vector<OptimizerParameter>& parameters, Arena& arena);

  void Update(const UpdateArgs& args, Stream& stream) override;
  void Finalize(Stream& stream) override;
  std::vector<PruningMask> pruning_masks() const override;
  void AddMetrics(std::map<std::string, double>* metrics) const override;
  const std::vector<NamedTensor>& state() const override { return state_; }

 private:
  // What is projected, and by which score.
  enum class Choice {
    kStart,  // x by magnitude
    kStep,   // w, in the gradient's memory, by the score of the options
    kEnd     // x by the score of the options
  };

  // Sums over the pruned tensors at one projection.
  struct Changes {
    int64_t flips = 0, both = 0, either = 0, first_flips = 0, kept = 0;
    double gap_squares = 0, squares = 0;
  };

  void Start(Stream& stream);
  void Adam(const ElsaTensor& tensor, const UpdateArgs& args, Stream& stream) const;
  void Project(const UpdateArgs& args, const ElsaPenalty& penalty, Stream& stream);
  void Report(const Changes& changes, double lambda);
  void SetFisherFactor(int64_t update);
  // Chooses the mask of each pruned tensor and calls body(tensor) when next_mask_ has it. body may change the tensor.
  template <typename Body>
  void ChooseMasks(Choice choice, Stream& stream, const Body& body);
  PruneScore ScoreOf(const ElsaTensor& tensor, Choice choice) const;
  TensorView NextMask(const ElsaTensor& tensor) const { return next_mask_.Slice(0, kernels::MaskBytes(tensor.size())); }

  const ElsaOptions options_;
  const int64_t parts_per_million_;
  std::vector<ElsaTensor> tensors_;
  std::vector<NamedTensor> state_;
  std::vector<PruneScore> scores_;  // of the pruned tensors, for one threshold over all
  int64_t pruned_tensors_size_ = 0;
  TensorView counts_, mask_counts_, sums_, sum_workspace_, next_mask_;
  float fisher_factor_ = 1;
  std::map<std::string, double> metrics_;  // of the last update
};

ElsaOptimizer::ElsaOptimizer(const ElsaOptions& options, const std::vector<OptimizerParameter>& parameters,
                             Arena& arena)
    : options_(options),
      parts_per_million_(kernels::PartsPerMillion(options.sparsity)),
      tensors_(ListElsaTensors(options, parameters)) {
  AllocateStates(options_, arena, &tensors_, &state_);
  int64_t largest = 0;
  for (const ElsaTensor& tensor : tensors_) {
    if (!tensor.is_pruned) continue;
    TY_CHECK(tensor.leading().dtype() == DType::kF32);  // bf16 weights have an f32 master
    largest = std::max(largest, tensor.size());
    pruned_tensors_size_ += tensor.size();
    scores_.emplace_back();
  }
  counts_ = arena.Allocate("workspace", DType::kU32, {256});
  mask_counts_ = arena.Allocate("workspace", DType::kU32, {3});
  sums_ = arena.Allocate("workspace", DType::kF32, {2});
  sum_workspace_ = arena.Allocate("workspace", DType::kU8, {kernels::AdmmResidualWorkspaceBytes(largest)});
  next_mask_ = arena.Allocate("workspace", DType::kU8, {kernels::MaskBytes(largest)});
}

PruneScore ElsaOptimizer::ScoreOf(const ElsaTensor& tensor, Choice choice) const {
  PruneScore result = {.w = choice == Choice::kStep ? tensor.gradient : tensor.leading()};
  if (choice == Choice::kStart || options_.projection == ElsaOptions::Projection::kMagnitude) return result;
  result.fisher = tensor.v;
  result.fisher_scales = tensor.v_scale;
  result.fisher_factor = fisher_factor_;
  return result;
}

template <typename Body>
void ElsaOptimizer::ChooseMasks(Choice choice, Stream& stream, const Body& body) {
  const int group = GroupOf(options_.pattern);
  const bool is_global = options_.scope == ElsaOptions::Scope::kModel && group == 1 && !scores_.empty();
  kernels::SelectThreshold threshold;
  if (is_global) {
    size_t next = 0;
    for (const ElsaTensor& tensor : tensors_) {
      if (tensor.is_pruned) scores_[next++] = ScoreOf(tensor, choice);
    }
    threshold =
        FindPruneThreshold(scores_, kernels::PrunedCount(pruned_tensors_size_, parts_per_million_), counts_, stream);
  }
  for (ElsaTensor& tensor : tensors_) {
    if (!tensor.is_pruned) continue;
    const PruneScore own = ScoreOf(tensor, choice);
    const TensorView mask = NextMask(tensor);
    if (group > 1) {
      PruneGroups({.score = own, .keep = group / 2, .group = group, .mask = mask}, stream);
    } else if (is_global) {
      PruneMask({.score = own, .threshold = threshold, .mask = mask, .counts = counts_}, stream);
      if (threshold.ties != kernels::kAllTies) {
        PruneEqual({.score = own, .key = threshold.key, .count = counts_.Slice(0, 1)}, stream);
        kernels::WaitForDevice(stream);
        threshold.ties -= std::min(threshold.ties, static_cast<int64_t>(*counts_.as<uint32_t>()));
      }
    } else {
      PruneLowest({&own, 1}, kernels::PrunedCount(tensor.size(), parts_per_million_), {&mask, 1}, counts_, stream);
    }
    body(tensor);
  }
}

void ElsaOptimizer::Start(Stream& stream) {
  ChooseMasks(Choice::kStart, stream, [&](const ElsaTensor& tensor) {
    for (const TensorView& mask : {tensor.mask, tensor.first_mask}) {
      MaskReplace({.mask = mask, .next = NextMask(tensor), .counts = mask_counts_}, stream);
    }
    AdmmProject({.w = tensor.leading(), .mask = tensor.mask, .has_dual = false, .z = tensor.z, .u = tensor.u}, stream);
  });
}

void ElsaOptimizer::Adam(const ElsaTensor& tensor, const UpdateArgs& args, Stream& stream) const {
  const auto weight_decay = tensor.decays ? static_cast<float>(options_.weight_decay) : 0.0f;
  // The pull has applied the factor already.
  const TensorView factor = tensor.is_pruned ? TensorView() : args.gradient_factor;
  if (tensor.m_scale) {
    AdamWInt8({.param = tensor.weight,
               .master = tensor.master,
               .grad = tensor.gradient,
               .m = tensor.m,
               .v = tensor.v,
               .m_scale = tensor.m_scale,
               .v_scale = tensor.v_scale,
               .lr = static_cast<float>(args.learning_rate),
               .beta1 = static_cast<float>(options_.beta1),
               .beta2 = static_cast<float>(options_.beta2),
               .eps = static_cast<float>(options_.epsilon),
               .weight_decay = weight_decay,
               .step = args.update,
               .gradient_factor = factor},
              stream);
    return;
  }
  AdamW({.param = tensor.weight,
         .master = tensor.master,
         .grad = tensor.gradient,
         .m = tensor.m,
         .v = tensor.v,
         .lr = static_cast<float>(args.learning_rate),
         .beta1 = static_cast<float>(options_.beta1),
         .beta2 = static_cast<float>(options_.beta2),
         .eps = static_cast<float>(options_.epsilon),
         .weight_decay = weight_decay,
         .step = args.update,
         .gradient_factor = factor},
        stream);
}

void ElsaOptimizer::Update(const UpdateArgs& args, Stream& stream) {
  const int64_t step_index = args.update - 1;
  metrics_.clear();
  if (step_index == 0) Start(stream);
  ElsaPenalty penalty = PenaltyAt(options_, step_index, args.steps);
  if (options_.lambda_divide_by_world) penalty.lambda /= args.ranks;
  for (const ElsaTensor& tensor : tensors_) {
    if (tensor.is_pruned) {
      AdmmProx({.grad = tensor.gradient,
                .x = tensor.leading(),
                .z = tensor.z,
                .u = tensor.u,
                .gradient_factor = args.gradient_factor,
                .lambda = static_cast<float>(penalty.lambda)},
               stream);
    }
    Adam(tensor, args, stream);
  }
  if (ProjectsAfter(options_, step_index)) Project(args, penalty, stream);
}

void ElsaOptimizer::Project(const UpdateArgs& args, const ElsaPenalty& penalty, Stream& stream) {
  SetFisherFactor(args.update);
  for (const ElsaTensor& tensor : tensors_) {
    if (!tensor.is_pruned) continue;
    AdmmPoint({.x = tensor.leading(),
               .dual = tensor.u ? tensor.u : tensor.z,
               .mask = tensor.u ? TensorView() : tensor.mask,
               .dual_factor = static_cast<float>(penalty.dual_factor),
               .w = tensor.gradient},
              stream);
  }
  Changes changes;
  ChooseMasks(Choice::kStep, stream, [&](const ElsaTensor& tensor) {
    MaskReplace({.mask = tensor.mask, .next = NextMask(tensor), .counts = mask_counts_}, stream);
    kernels::WaitForDevice(stream);
    changes.flips += mask_counts_.as<uint32_t>()[0];
    changes.both += mask_counts_.as<uint32_t>()[1];
    changes.either += mask_counts_.as<uint32_t>()[2];
    MaskCompare({.a = tensor.mask, .b = tensor.first_mask, .counts = mask_counts_}, stream);
    kernels::WaitForDevice(stream);
    changes.first_flips += mask_counts_.as<uint32_t>()[0];
    MaskCompare({.a = tensor.mask, .b = tensor.mask, .counts = mask_counts_}, stream);
    kernels::WaitForDevice(stream);
    changes.kept += mask_counts_.as<uint32_t>()[1];
    AdmmResidual(
        {.x = tensor.leading(), .w = tensor.gradient, .mask = tensor.mask, .sums = sums_, .workspace = sum_workspace_},
        stream);
    kernels::WaitForDevice(stream);
    changes.gap_squares += sums_.as<float>()[0];
    changes.squares += sums_.as<float>()[1];
    AdmmProject({.w = tensor.gradient, .mask = tensor.mask, .z = tensor.z, .u = tensor.u}, stream);
  });
  Report(changes, penalty.lambda);
}

void ElsaOptimizer::Report(const Changes& changes, double lambda) {
  const auto all = static_cast<double>(std::max<int64_t>(1, pruned_tensors_size_));
  metrics_["elsa_lambda"] = lambda;
  metrics_["elsa_sparsity"] = 1 - static_cast<double>(changes.kept) / all;
  metrics_["elsa_mask_flips"] = static_cast<double>(changes.flips) / all;
  metrics_["elsa_mask_iou"] =
      changes.either == 0 ? 1.0 : static_cast<double>(changes.both) / static_cast<double>(changes.either);
  metrics_["elsa_first_mask_flips"] = static_cast<double>(changes.first_flips) / all;
  metrics_["elsa_residual"] = changes.squares > 0 ? std::sqrt(changes.gap_squares / changes.squares) : 0.0;
}

void ElsaOptimizer::SetFisherFactor(int64_t update) {
  fisher_factor_ = 1;
  if (!options_.bias_correction) return;
  fisher_factor_ = static_cast<float>(1.0 / (1.0 - std::pow(options_.beta2, static_cast<double>(update))));
}

void ElsaOptimizer::Finalize(Stream& stream) {
  // The weights alone, without the dual.
  fisher_factor_ = 1;  // also after a restore: the same bits
  ChooseMasks(Choice::kEnd, stream, [&](const ElsaTensor& tensor) {
    MaskReplace({.mask = tensor.mask, .next = NextMask(tensor), .counts = mask_counts_}, stream);
    kernels::WaitForDevice(stream);
    MaskApply({.x = tensor.weight, .mask = tensor.mask}, stream);
    if (tensor.master) MaskApply({.x = tensor.master, .mask = tensor.mask}, stream);
  });
}

std::vector<PruningMask> ElsaOptimizer::pruning_masks() const {
  std::vector<PruningMask> masks;
  for (const ElsaTensor& tensor : tensors_) {
    if (tensor.is_pruned) masks.push_back({tensor.name, tensor.rows, tensor.cols, tensor.mask});
  }
  return masks;
}

void ElsaOptimizer::AddMetrics(std::map<std::string, double>* metrics) const {
  metrics->insert(metrics_.begin(), metrics_.end());
}

}  // namespace

absl::Status CheckElsa(const ElsaOptions& options, const std::vector<OptimizerParameter>& parameters) {
  const int group = GroupOf(options.pattern);
  bool prunes = false;
  for (const ElsaTensor& tensor : ListElsaTensors(options, parameters)) {
    prunes = prunes || tensor.is_pruned;
    if (tensor.is_pruned && tensor.cols % group != 0) {
      return absl::InvalidArgumentError(absl::StrCat("training.optimizer.elsa.pattern: ", group / 2, ":", group,
                                                     " needs rows of a multiple of ", group, " elements; ", tensor.name,
                                                     " has ", tensor.cols, "; exclude it or change the model"));
    }
  }
  if (prunes) return absl::OkStatus();
  return absl::InvalidArgumentError("training.optimizer.elsa.exclude: leaves no matrix to prune");
}

std::unique_ptr<Optimizer> MakeElsaOptimizer(const ElsaOptions& options, std::vector<OptimizerParameter> parameters,
                                             Arena& arena) {
  return std::make_unique<ElsaOptimizer>(options, parameters, arena);
}

}  // namespace trainyard::optim
