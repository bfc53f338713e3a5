// Gradients of single samples, brought to a few numbers each (influence-distillation.md 2.6):
//
//   g = gradient of the mean loss over the sample's labels with respect to the chosen elements of the chosen parameters
//   influence: feature = P(a (*) g / |a (*) g|)       landmarks and pool samples; targets without a
//   LESS:      feature = P(u) / |P(u)|                u: FrozenAdam::LessDirection; targets: u = g
//
// with one projection P for all. The norm before normalisation is kept: it is what the update model is about.
// A sample is a batch of its own over the smallest of a few fixed lengths that holds it, so its numbers depend on
// nothing but itself and the weights. Linear layers are plain ones, whatever scheme the training has.
//
// On a CUDA device the gradient, its gathering and scaling, norms and projection are made there; a call waits once, for
// the feature. Every call returns with the stream idle.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/core/arena.h"
#include "kernels/core/stream.h"
#include "kernels/influence/gradient_vector.h"
#include "kernels/transform/random_projection.h"
#include "proto/spec/select_data_options.h"
#include "worker/influence/update_model.h"
#include "worker/linear/linear_scheme.h"
#include "worker/model/network.h"
#include "worker/model/parameters.h"

namespace trainyard::influence {

// The tokens of a sample and where its labels begin, as data::SampleRecord has it.
struct Sample {
  std::vector<int32_t> tokens;
  int64_t label_begin = 1;
};

struct GradientFeatureOptions {
  model::ModelConfig config;
  kernels::DType dtype = kernels::DType::kF32;
  int64_t sequence_length = 1;
  int threads = 1;
  kernels::Device device = kernels::Device::kCpu;  // of the weights, the gradients and the streams
  spec::SelectionGradientOptions gradients;
  uint64_t seed = 0;  // of the projection and of the element mask
};

// The optimizer's state where gradients are taken; m and v as ListParameters, f32.
struct OptimizerState {
  FrozenAdam adam;
  std::vector<kernels::TensorView> m, v;
};

enum class FeatureKind { kPlain, kScaled, kLess, kLessTarget };

class GradientFeatures {
 public:
  // `weights` and `gradients` (memory to work in) are borrowed. InvalidArgument if no parameter matches the patterns,
  // ResourceExhausted if the memory cannot be had.
  static absl::StatusOr<std::unique_ptr<GradientFeatures>> Create(const GradientFeatureOptions& options,
                                                                  const model::NetworkTensors* weights,
                                                                  const model::NetworkTensors* gradients);

  // Elements of the gradient that are looked at, and numbers of a feature.
  int64_t element_count() const { return element_count_; }
  int64_t feature_size() const { return projection_->outputs(); }
  int64_t memory_bytes() const { return arena_.used_bytes() + kept_arena_.used_bytes(); }

  // For kScaled and kLess; may be called again.
  void SetOptimizerState(OptimizerState state) { state_ = std::move(state); }

  // Writes the feature (feature_size), to the host, and returns the norm of what was normalised. A sample without
  // labels, or whose gradient is 0 or not finite, has norm 0 and a feature of zeros. Errors are the device's.
  absl::StatusOr<double> Feature(const Sample& sample, FeatureKind kind, float* feature, kernels::Stream& stream);

  // For curvature, all arguments on the host. The chosen elements themselves (element_count), times one's scale where
  // `kind` is kScaled; and the projection of such elements.
  absl::Status Gradient(const Sample& sample, FeatureKind kind, float* out, kernels::Stream& stream);
  absl::Status Project(const float* elements, float* feature, kernels::Stream& stream);

  // weights = kept weights + step * direction on the chosen elements of f32 weights; step 0 puts them back.
  absl::Status KeepWeights(kernels::Stream& stream);
  absl::Status MoveWeights(const float* direction, double step, kernels::Stream& stream);

 private:
  // One chosen parameter: where its elements lie in the flat gradient.
  struct Part {
    size_t parameter = 0;
    int64_t begin = 0;  // in the flat gradient
    int64_t count = 0;
    std::vector<uint32_t> elements;       // empty: all
    const uint32_t* on_device = nullptr;  // these, in memory of the device; null: all
  };
  struct Length {
    int64_t positions = 0;
    std::unique_ptr<model::Network> network;
  };

  explicit GradientFeatures(const GradientFeatureOptions& options)
      : options_(options),
        arena_(kernels::Arena::CountOnly(options.device)),
        kept_arena_(kernels::Arena::CountOnly(options.device)) {}
  absl::Status ChooseElements();
  void Lay(kernels::Arena& arena);
  // Enqueues the gradient of the sample into elements_; false, and nothing enqueued, if it has no label.
  bool EnqueueGradient(const Sample& sample, kernels::Stream& stream);
  // elements_ times one's scale, where `kind` has one.
  void EnqueueScale(FeatureKind kind, kernels::Stream& stream);
  kernels::VectorNormArgs NormOf(float* x, int64_t count, const double* gate, double* norm) const;

  const GradientFeatureOptions options_;
  kernels::Arena arena_;
  kernels::Arena kept_arena_;
  const model::NetworkTensors* weights_ = nullptr;
  const model::NetworkTensors* gradients_ = nullptr;
  std::unique_ptr<linear::LinearScheme> scheme_;
  std::vector<Length> lengths_;  // ascending
  std::vector<Part> parts_;
  int64_t element_count_ = 0;
  std::unique_ptr<kernels::RandomProjection> projection_;
  OptimizerState state_;

  // ---- Memory of the device ----
  float* elements_ = nullptr;  // (element_count)
  float* scratch_ = nullptr;   // of the projection
  double* workspace_ = nullptr;
  float* kept_ = nullptr;  // (element_count), from KeepWeights on
  // Shared with the host.
  float* feature_ = nullptr;  // (feature_size)
  double* norms_ = nullptr;   // of the gradient, of what was normalised, of a projection
};

}  // namespace trainyard::influence
