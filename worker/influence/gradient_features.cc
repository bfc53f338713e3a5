#include "worker/influence/gradient_features.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/check.h"
#include "base/pattern.h"
#include "base/status_macros.h"
#include "kernels/loss/cross_entropy.h"

namespace trainyard::influence {
namespace {

using kernels::Arena;
using kernels::DType;
using kernels::Stream;

constexpr int64_t kShortest = 32;

kernels::RandomProjection::Kind KindOf(spec::SelectionProjection projection) {
  switch (projection) {
    case spec::SelectionProjection::kRademacher:
      return kernels::RandomProjection::Kind::kRademacher;
    case spec::SelectionProjection::kNone:
      return kernels::RandomProjection::Kind::kNone;
    case spec::SelectionProjection::kHadamard:
      break;
  }
  return kernels::RandomProjection::Kind::kHadamard;
}

constexpr int64_t kNorms = 3;

}  // namespace

absl::Status GradientFeatures::ChooseElements() {
  const std::vector<model::Parameter> parameters = ListParameters(options_.config);
  int64_t total = 0;
  for (size_t i = 0; i < parameters.size(); ++i) {
    if (!MatchesAny(options_.gradients.parameters, parameters[i].name)) continue;
    parts_.push_back({.parameter = i, .begin = 0, .count = parameters[i].size(), .elements = {}});
    total += parameters[i].size();
  }
  if (parts_.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("select_data.gradients.parameters: no parameter of the model matches ",
                     absl::StrJoin(options_.gradients.parameters, ", "), "; there are ", parameters.size(),
                     ", for example ", parameters[parameters.size() / 2].name));
  }
  const int64_t wanted = options_.gradients.mask_elements;
  for (Part& part : parts_) {
    if (wanted > 0 && wanted < total) {  // in proportion to sizes, at least one each
      const double share = static_cast<double>(part.count) / static_cast<double>(total) * static_cast<double>(wanted);
      const int64_t kept = std::clamp<int64_t>(std::llround(share), 1, part.count);
      const kernels::PhiloxKey key{.seed = options_.seed,
                                   .purpose = kernels::kRandomElementMask,
                                   .tensor = static_cast<uint32_t>(part.parameter)};
      part.elements = kernels::RandomSubset(key, part.count, kept);
      part.count = kept;
    }
    part.begin = element_count_;
    element_count_ += part.count;
  }
  return absl::OkStatus();
}

// Everything but the projection's own table. On the second call, over the real arena, networks replace those that were
// only counted.
void GradientFeatures::Lay(Arena& arena) {
  lengths_.clear();
  for (int64_t positions = kShortest;; positions *= 2) {
    const int64_t length = std::min(positions, options_.sequence_length);
    model::NetworkOptions network;
    network.seq = length;
    network.dtype = options_.dtype;
    network.threads = options_.threads;
    lengths_.push_back({length, std::make_unique<model::Network>(options_.config, network, scheme_.get(), weights_,
                                                                 gradients_, arena)});
    if (length == options_.sequence_length) break;
  }
  const auto floats = [&](int64_t count) { return arena.Allocate("features", DType::kF32, {count}).as<float>(); };
  const auto doubles = [](const kernels::TensorView& bytes) { return static_cast<double*>(bytes.data()); };
  elements_ = floats(element_count_);
  scratch_ = floats(projection_->scratch_size());
  constexpr int64_t kDouble = sizeof(double);
  const int64_t partials = kernels::VectorNormWorkspace(std::max(element_count_, projection_->outputs()));
  workspace_ = doubles(arena.Allocate("features", DType::kU8, {partials * kDouble}));
  feature_ = arena.AllocateShared("features", DType::kF32, {projection_->outputs()}).as<float>();
  norms_ = doubles(arena.AllocateShared("features", DType::kU8, {kNorms * kDouble}));
  for (Part& part : parts_) {
    if (part.elements.empty()) continue;
    void* const copy = arena.Allocate("features", DType::kU32, {part.count}).data();
    if (!arena.counts_only()) std::copy(part.elements.begin(), part.elements.end(), static_cast<uint32_t*>(copy));
    part.on_device = static_cast<uint32_t*>(copy);
  }
}

absl::StatusOr<std::unique_ptr<GradientFeatures>> GradientFeatures::Create(const GradientFeatureOptions& options,
                                                                           const model::NetworkTensors* weights,
                                                                           const model::NetworkTensors* gradients) {
  std::unique_ptr<GradientFeatures> features(new GradientFeatures(options));
  features->weights_ = weights;
  features->gradients_ = gradients;
  TY_RETURN_IF_ERROR(features->ChooseElements());
  features->scheme_ = options.dtype == DType::kBF16 ? linear::MakeBf16Scheme() : linear::MakeFp32Scheme();
  features->projection_ =
      std::make_unique<kernels::RandomProjection>(KindOf(options.gradients.projection), features->element_count_,
                                                  options.gradients.projection_dim, options.seed, options.device);
  Arena counting = Arena::CountOnly(options.device);
  features->Lay(counting);
  TY_ASSIGN_OR_RETURN(features->arena_, Arena::Reserve(counting));
  features->Lay(features->arena_);
  Stream stream(options.device, 1);
  for (const Length& length : features->lengths_) length.network->Prepare(stream);
  TY_RETURN_IF_ERROR(stream.Synchronize());
  return features;
}

bool GradientFeatures::EnqueueGradient(const Sample& sample, Stream& stream) {
  TY_CHECK(stream.device() == options_.device);
  const auto length = static_cast<int64_t>(sample.tokens.size());
  const int64_t positions = std::min(length - 1, options_.sequence_length);
  const int64_t labels = std::max<int64_t>(0, positions + 1 - sample.label_begin);
  if (labels == 0) return false;
  const auto fits = std::find_if(lengths_.begin(), lengths_.end(),
                                 [&](const Length& candidate) { return candidate.positions >= positions; });
  TY_CHECK(fits != lengths_.end());
  model::Network& network = *fits->network;
  int32_t* const tokens = network.tokens().as<int32_t>();
  int32_t* const targets = network.targets().as<int32_t>();
  for (int64_t i = 0; i < fits->positions; ++i) {
    tokens[i] = i < positions ? sample.tokens[static_cast<size_t>(i)] : 0;
    const bool is_label = i < positions && i + 1 >= sample.label_begin;
    targets[i] = is_label ? sample.tokens[static_cast<size_t>(i) + 1] : kernels::kIgnoreTarget;
  }
  network.ForwardBackward({.loss_scale = static_cast<float>(1 / static_cast<double>(labels))}, stream);
  for (const Part& part : parts_) {
    kernels::GatherElements({.x = gradients_->all[part.parameter].as<float>(),
                             .elements = part.on_device,
                             .count = part.count,
                             .y = elements_ + part.begin},
                            stream);
  }
  return true;
}

void GradientFeatures::EnqueueScale(FeatureKind kind, Stream& stream) {
  if (kind != FeatureKind::kScaled && kind != FeatureKind::kLess) return;
  const FrozenAdam& adam = state_.adam;
  kernels::ScaleGradientArgs args;
  args.rule =
      kind == FeatureKind::kLess ? kernels::ScaleGradientArgs::Rule::kLess : kernels::ScaleGradientArgs::Rule::kFrozen;
  // FrozenAdam::GradientScale, without its powers.
  args.first = (1 - adam.beta1) / adam.first_correction();
  args.correction = 1 - std::pow(adam.beta2, static_cast<double>(adam.steps + 1));
  args.beta1 = adam.beta1;
  args.beta2 = adam.beta2;
  args.epsilon = adam.epsilon;
  for (const Part& part : parts_) {
    args.m = state_.m[part.parameter].as<float>();
    args.v = state_.v[part.parameter].as<float>();
    args.elements = part.on_device;
    args.count = part.count;
    args.y = elements_ + part.begin;
    kernels::ScaleGradient(args, stream);
  }
}

kernels::VectorNormArgs GradientFeatures::NormOf(float* x, int64_t count, const double* gate, double* norm) const {
  return {.x = x, .count = count, .gate = gate, .norm = norm, .workspace = workspace_};
}

absl::StatusOr<double> GradientFeatures::Feature(const Sample& sample, FeatureKind kind, float* feature,
                                                 Stream& stream) {
  if (!EnqueueGradient(sample, stream)) {
    std::fill_n(feature, feature_size(), 0.0f);
    return 0;
  }
  const bool is_less = kind == FeatureKind::kLess || kind == FeatureKind::kLessTarget;
  double *const of_gradient = norms_, *const of_scaled = norms_ + 1, *const of_projected = norms_ + 2;
  // A gradient of 0 has no direction either, not even that of the momentum.
  VectorNorm(NormOf(elements_, element_count_, nullptr, of_gradient), stream);
  EnqueueScale(kind, stream);
  VectorNorm(NormOf(elements_, element_count_, of_gradient, of_scaled), stream);
  DivideByNorm({.x = elements_, .count = element_count_, .norm = of_scaled, .keeps_length = is_less}, stream);
  projection_->Apply(elements_, scratch_, feature_, stream);
  if (is_less) {
    VectorNorm(NormOf(feature_, feature_size(), of_scaled, of_projected), stream);
    DivideByNorm({.x = feature_, .count = feature_size(), .norm = of_projected}, stream);
  }
  TY_RETURN_IF_ERROR(stream.Synchronize());
  std::copy_n(feature_, feature_size(), feature);
  return *of_scaled;
}

absl::Status GradientFeatures::Gradient(const Sample& sample, FeatureKind kind, float* out, Stream& stream) {
  if (!EnqueueGradient(sample, stream)) {
    std::fill_n(out, element_count_, 0.0f);
    return absl::OkStatus();
  }
  EnqueueScale(kind, stream);
  TY_RETURN_IF_ERROR(stream.Synchronize());
  std::copy_n(elements_, element_count_, out);
  return absl::OkStatus();
}

absl::Status GradientFeatures::Project(const float* elements, float* feature, Stream& stream) {
  std::copy_n(elements, element_count_, elements_);
  projection_->Apply(elements_, scratch_, feature_, stream);
  TY_RETURN_IF_ERROR(stream.Synchronize());
  std::copy_n(feature_, feature_size(), feature);
  return absl::OkStatus();
}

absl::Status GradientFeatures::KeepWeights(Stream& stream) {
  if (kept_ == nullptr) {
    const auto lay = [&](Arena& arena) {
      return arena.Allocate("features", DType::kF32, {element_count_}).as<float>();
    };
    Arena counting = Arena::CountOnly(options_.device);
    lay(counting);
    TY_ASSIGN_OR_RETURN(kept_arena_, Arena::Reserve(counting));
    kept_ = lay(kept_arena_);
  }
  for (const Part& part : parts_) {
    kernels::GatherElements({.x = weights_->all[part.parameter].as<float>(),
                             .elements = part.on_device,
                             .count = part.count,
                             .y = kept_ + part.begin},
                            stream);
  }
  return stream.Synchronize();
}

absl::Status GradientFeatures::MoveWeights(const float* direction, double step, Stream& stream) {
  TY_CHECK(kept_ != nullptr);
  std::copy_n(direction, element_count_, elements_);
  for (const Part& part : parts_) {
    kernels::MoveElements({.base = kept_ + part.begin,
                           .direction = elements_ + part.begin,
                           .step = step,
                           .elements = part.on_device,
                           .count = part.count,
                           .x = weights_->all[part.parameter].as<float>()},
                          stream);
  }
  return stream.Synchronize();
}

}  // namespace trainyard::influence
