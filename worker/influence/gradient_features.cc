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
#include "kernels/tangent/random_direction.h"

namespace trainyard::influence {
namespace {

using kernels::Arena;
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

double Norm(const float* x, int64_t count) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += double{x[i]} * double{x[i]};
  return std::sqrt(sum);
}

bool IsUsable(double norm) {
  return std::isfinite(norm) && norm > 0;
}

}  // namespace

template <typename Body>
void GradientFeatures::ForElements(const Body& body) const {
  for (const Part& part : parts_) {
    for (int64_t i = 0; i < part.count; ++i) {
      body(part.parameter, part.elements.empty() ? i : int64_t{part.elements[static_cast<size_t>(i)]}, part.begin + i);
    }
  }
}

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

void GradientFeatures::MakeNetworks(Arena& arena, std::vector<Length>* lengths) const {
  lengths->clear();
  for (int64_t positions = kShortest;; positions *= 2) {
    const int64_t length = std::min(positions, options_.sequence_length);
    model::NetworkOptions network;
    network.seq = length;
    network.dtype = options_.dtype;
    network.threads = options_.threads;
    lengths->push_back({length, std::make_unique<model::Network>(options_.config, network, scheme_.get(), weights_,
                                                                 gradients_, arena)});
    if (length == options_.sequence_length) return;
  }
}

absl::StatusOr<std::unique_ptr<GradientFeatures>> GradientFeatures::Create(const GradientFeatureOptions& options,
                                                                           const model::NetworkTensors* weights,
                                                                           const model::NetworkTensors* gradients) {
  std::unique_ptr<GradientFeatures> features(new GradientFeatures(options));
  features->weights_ = weights;
  features->gradients_ = gradients;
  TY_RETURN_IF_ERROR(features->ChooseElements());
  features->scheme_ = options.dtype == kernels::DType::kBF16 ? linear::MakeBf16Scheme() : linear::MakeFp32Scheme();
  Arena counting = Arena::CountOnly();
  features->MakeNetworks(counting, &features->lengths_);
  TY_ASSIGN_OR_RETURN(features->arena_, Arena::Reserve(counting.used_bytes()));
  features->MakeNetworks(features->arena_, &features->lengths_);
  Stream stream(1);
  for (const Length& length : features->lengths_) length.network->Prepare(stream);
  features->projection_ = std::make_unique<kernels::RandomProjection>(
      KindOf(options.gradients.projection), features->element_count_, options.gradients.projection_dim, options.seed);
  features->elements_.resize(static_cast<size_t>(features->element_count_));
  features->scratch_.resize(static_cast<size_t>(features->projection_->scratch_size()));
  return features;
}

void GradientFeatures::Gradient(const Sample& sample, float* out, Stream& stream) {
  const auto length = static_cast<int64_t>(sample.tokens.size());
  const int64_t positions = std::min(length - 1, options_.sequence_length);
  const int64_t labels = std::max<int64_t>(0, positions + 1 - sample.label_begin);
  if (labels == 0) {
    std::fill_n(out, element_count_, 0.0f);
    return;
  }
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
  ForElements([&](size_t parameter, int64_t element, int64_t place) {
    out[place] = static_cast<const float*>(gradients_->all[parameter].data())[element];
  });
}

void GradientFeatures::Scale(FeatureKind kind, float* elements) const {
  if (kind != FeatureKind::kScaled && kind != FeatureKind::kLess) return;
  const double first = (1 - state_.adam.beta1) / state_.adam.first_correction();
  const double correction = 1 - std::pow(state_.adam.beta2, static_cast<double>(state_.adam.steps + 1));
  ForElements([&](size_t parameter, int64_t element, int64_t place) {
    const double v = state_.v[parameter].as<float>()[element];
    const double g = elements[place];
    if (kind == FeatureKind::kScaled) {  // FrozenAdam::GradientScale, without its powers
      elements[place] = static_cast<float>(first / (std::sqrt(v / correction) + state_.adam.epsilon) * g);
    } else {
      const double m = state_.m[parameter].as<float>()[element];
      elements[place] = static_cast<float>(state_.adam.LessDirection(g, m, v));
    }
  });
}

void GradientFeatures::FixedPart(float* out) const {
  ForElements([&](size_t parameter, int64_t element, int64_t place) {
    const double theta = weights_->all[parameter].as<float>()[element];
    out[place] = static_cast<float>(state_.adam.FixedPart(theta, state_.m[parameter].as<float>()[element],
                                                          state_.v[parameter].as<float>()[element]));
  });
}

void GradientFeatures::Project(const float* elements, float* feature, Stream& stream) {
  projection_->Apply(elements, scratch_.data(), feature, stream);
}

double GradientFeatures::Feature(const Sample& sample, FeatureKind kind, float* feature, Stream& stream) {
  Gradient(sample, elements_.data(), stream);
  const bool is_less = kind == FeatureKind::kLess || kind == FeatureKind::kLessTarget;
  double norm = Norm(elements_.data(), element_count_);
  if (IsUsable(norm)) {  // a sample without labels has no direction either, not even that of the momentum
    Scale(kind, elements_.data());
    norm = Norm(elements_.data(), element_count_);
  }
  if (!IsUsable(norm)) {
    std::fill_n(feature, feature_size(), 0.0f);
    return 0;
  }
  if (!is_less) {
    const auto factor = static_cast<float>(1 / norm);
    for (float& element : elements_) element *= factor;
  }
  Project(elements_.data(), feature, stream);
  if (is_less) {
    const double projected = Norm(feature, feature_size());
    const auto factor = static_cast<float>(IsUsable(projected) ? 1 / projected : 0);
    for (int64_t i = 0; i < feature_size(); ++i) feature[i] *= factor;
  }
  return norm;
}

void GradientFeatures::MoveWeights(const float* direction, double step) const {
  ForElements([&](size_t parameter, int64_t element, int64_t place) {
    float& weight = weights_->all[parameter].as<float>()[element];
    weight = static_cast<float>(double{weight} + step * double{direction[place]});
  });
}

}  // namespace trainyard::influence
