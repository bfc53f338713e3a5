#include "worker/train/gan_metrics/feature_classifier.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "kernels/core/arena.h"
#include "kernels/core/dispatch.h"
#include "kernels/loss/cross_entropy.h"
#include "kernels/optim/adamw.h"
#include "worker/model/gan/layer_program.h"

namespace trainyard::train {
namespace {

using kernels::Arena;
using kernels::DType;
using kernels::Stream;
using kernels::TensorView;
using model::GradientMode;
using model::LayerProgram;

constexpr float kSlope = 0.1f;
constexpr LayerProgram::Geometry kDown = {.kernel = 4, .stride = 2, .padding = 1};
constexpr uint32_t kTrunkTensor = 1 << 17;  // Philox tensor numbers beyond those of the GAN's nets
constexpr uint32_t kHeadTensor = kTrunkTensor + 64;

LayerProgram Trunk(const FeatureClassifierOptions& options, int64_t channels) {
  LayerProgram p("classifier", options.batch, {channels, 32, 32}, 0);
  int x = p.LeakyReluInPlace(p.Conv("conv1", 0, 16, kDown), kSlope);
  x = p.LeakyReluInPlace(p.Conv("conv2", x, 32, kDown), kSlope);
  x = p.LeakyReluInPlace(p.Conv("conv3", x, 64, kDown), kSlope);
  p.LeakyReluInPlace(p.Linear("features", x, {.channels = options.features}), kSlope);
  return p;
}

LayerProgram Head(const FeatureClassifierOptions& options, int64_t classes) {
  LayerProgram p("classifier", options.batch, {.channels = options.features}, 0);
  p.Linear("head", 0, {.channels = classes});
  return p;
}

class Classifier final : public FeatureClassifier {
 public:
  Classifier(const FeatureClassifierOptions& options, int64_t channels, int64_t classes, Arena& arena)
      : options_(options), channels_(channels), trunk_(Trunk(options, channels)), head_(Head(options, classes)) {
    trunk_.Allocate({.threads = options.threads}, arena);
    head_.Allocate({.threads = options.threads}, arena);
    const auto moments = [&](const LayerProgram& program) {
      return arena.Allocate("moments", DType::kF32, {program.weights().size()});
    };
    trunk_m_ = moments(trunk_);
    trunk_v_ = moments(trunk_);
    head_m_ = moments(head_);
    head_v_ = moments(head_);
    images_ = arena.AllocateShared("activations", DType::kF32, {options.batch, channels, 32, 32});
    labels_ = arena.AllocateShared("activations", DType::kI32, {options.batch});
    losses_ = arena.Allocate("activations", DType::kF32, {options.batch});
    feature_gradient_ = arena.Allocate("activations", DType::kF32, {options.batch, options.features});
  }
  void Keep(Arena arena) { arena_ = std::move(arena); }

  void Fit(const data::SampleSource& source, Stream& stream) {
    trunk_.Initialize(options_.seed, kTrunkTensor, stream);
    head_.Initialize(options_.seed, kHeadTensor, stream);
    for (int64_t step = 0; step < options_.steps; ++step) {
      kernels::WaitForDevice(stream);
      source.FillBatch({.seed = options_.seed, .step = step}, images_, labels_);
      const TensorView logits = head_.Forward(trunk_.Forward(images_, stream), stream);
      CrossEntropyForwardBackward({.logits = logits,
                                   .targets = labels_,
                                   .losses = losses_,
                                   .grad_scale = 1.0f / static_cast<float>(options_.batch)},
                                  stream);
      head_.Backward(logits, feature_gradient_, GradientMode::kOverwrite, nullptr, stream);
      trunk_.Backward(feature_gradient_, {}, GradientMode::kOverwrite, nullptr, stream);
      // Down to zero in a line, so that the last step is as good as the others.
      const float rate =
          options_.learning_rate * static_cast<float>(options_.steps - step) / static_cast<float>(options_.steps);
      Update(trunk_, trunk_m_, trunk_v_, rate, step + 1, stream);
      Update(head_, head_m_, head_v_, rate, step + 1, stream);
    }
  }

  int64_t feature_count() const override { return options_.features; }

  void Features(const TensorView& images, const TensorView& features, Stream& stream) override {
    const int64_t count = images.dim(0);
    kernels::WaitForDevice(stream);
    TY_CHECK_EQ(images.size(), count * channels_ * 32 * 32);
    TY_CHECK_EQ(features.size(), count * options_.features);
    for (int64_t first = 0; first < count; first += options_.batch) {
      const int64_t rows = std::min(options_.batch, count - first);
      // Rows beyond the last image are what was there: their features go nowhere.
      std::memcpy(images_.data(), images.Slice(first, rows).data(),
                  static_cast<size_t>(images_.bytes() / options_.batch * rows));
      const TensorView& result = trunk_.Forward(images_, stream);
      kernels::WaitForDevice(stream);
      std::memcpy(features.as<float>() + first * options_.features, result.data(),
                  static_cast<size_t>(rows * options_.features) * sizeof(float));
    }
  }

  double Accuracy(const data::SampleSource& source, int64_t samples, Stream& stream) override {
    TY_CHECK_GE(samples, 1);
    int64_t right = 0;
    kernels::WaitForDevice(stream);
    for (int64_t first = 0; first < samples; first += options_.batch) {
      source.FillReference(first, images_, labels_);
      const TensorView logits = head_.Forward(trunk_.Forward(images_, stream), stream);
      kernels::WaitForDevice(stream);
      const int64_t classes = logits.dim(1);
      for (int64_t n = 0; n < std::min(options_.batch, samples - first); ++n) {
        const float* row = logits.as<float>() + n * classes;
        right += std::max_element(row, row + classes) - row == labels_.as<int32_t>()[n] ? 1 : 0;
      }
    }
    return static_cast<double>(right) / static_cast<double>(samples);
  }

 private:
  void Update(const LayerProgram& program, const TensorView& m, const TensorView& v, float rate, int64_t step,
              Stream& stream) {
    AdamW({.param = program.weights(),
           .grad = program.gradients(),
           .m = m,
           .v = v,
           .lr = rate,
           .beta2 = 0.999f,
           .step = step},
          stream);
  }

  const FeatureClassifierOptions options_;
  const int64_t channels_;
  Arena arena_ = Arena::CountOnly();
  LayerProgram trunk_, head_;
  TensorView trunk_m_, trunk_v_, head_m_, head_v_;
  TensorView images_, labels_, losses_, feature_gradient_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<FeatureClassifier>> FeatureClassifier::Train(const FeatureClassifierOptions& options,
                                                                            const data::SampleSource& source,
                                                                            Stream& stream) {
  const std::vector<int64_t> shape = source.sample_shape();
  if (shape.size() != 3 || shape[1] != 32 || shape[2] != 32) {
    return absl::InvalidArgumentError("features are made of images of 32 x 32; these samples are none");
  }
  if (source.class_count() < 2) {
    return absl::InvalidArgumentError(
        absl::StrCat("features need images with labels of at least 2 classes; these have ", source.class_count()));
  }
  Arena counting = Arena::CountOnly(stream.device());
  Classifier(options, shape[0], source.class_count(), counting);
  TY_ASSIGN_OR_RETURN(Arena arena, Arena::Reserve(counting));
  auto classifier = std::make_unique<Classifier>(options, shape[0], source.class_count(), arena);
  classifier->Keep(std::move(arena));
  classifier->Fit(source, stream);
  return classifier;
}

}  // namespace trainyard::train
