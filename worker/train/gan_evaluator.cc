#include "worker/train/gan_evaluator.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "base/status_macros.h"
#include "kernels/core/dispatch.h"
#include "worker/data/images/png_grid.h"
#include "worker/train/gan_metrics/frechet_distance.h"
#include "worker/train/gan_metrics/mode_coverage.h"
#include "worker/train/gan_metrics/sliced_wasserstein.h"
#include "worker/train/gan_nets.h"
#include "worker/train/gan_trainer.h"
#include "worker/train/scatter_plot.h"

namespace trainyard::train {
namespace {

using kernels::Arena;
using kernels::DType;
using kernels::TensorView;

constexpr int64_t kChunk = 64;           // samples of one pass of the generator
constexpr int kProjections = 128;        // of the sliced Wasserstein distance
constexpr uint64_t kProjectionSeed = 1;  // not the job's: figures of different runs can be compared
constexpr uint32_t kLatentStream = 1;    // stream 0 trains

int64_t SizeOf(const std::vector<int64_t>& shape) {
  int64_t size = 1;
  for (const int64_t extent : shape) size *= extent;
  return size;
}

}  // namespace

absl::StatusOr<std::unique_ptr<GanEvaluator>> GanEvaluator::CreateCounting(const GanEvaluatorOptions& options,
                                                                           const TensorView& weights) {
  std::unique_ptr<GanEvaluator> evaluator(new GanEvaluator(options, Arena::CountOnly(options.device)));
  TY_RETURN_IF_ERROR(evaluator->Allocate(weights));
  return evaluator;
}

absl::StatusOr<std::unique_ptr<GanEvaluator>> GanEvaluator::Create(const GanEvaluatorOptions& options,
                                                                   const TensorView& weights) {
  TY_ASSIGN_OR_RETURN(const std::unique_ptr<GanEvaluator> counting, CreateCounting(options, weights));
  TY_ASSIGN_OR_RETURN(Arena arena, Arena::Reserve(counting->arena_));
  std::unique_ptr<GanEvaluator> evaluator(new GanEvaluator(options, std::move(arena)));
  TY_RETURN_IF_ERROR(evaluator->Allocate(weights));
  return evaluator;
}

absl::Status GanEvaluator::Allocate(const TensorView& weights) {
  const spec::QodaGanOptions& gan = options_.gan;
  model::GanNetOptions net = GeneratorOptions(gan, options_.sample_shape, kChunk, options_.threads);
  net.trains = false;
  net.weights = weights;
  TY_ASSIGN_OR_RETURN(generator_, model::GanNet::MakeGenerator(net, arena_));
  latents_ = arena_.AllocateShared("evaluation", DType::kF32, {kChunk, gan.latent_dim});
  const int64_t samples = gan.evaluation_samples, size = SizeOf(options_.sample_shape);
  generated_ = arena_.Allocate("evaluation", DType::kF32, {std::max<int64_t>(samples, gan.sample_count), size});
  if (options_.rank != 0) return absl::OkStatus();
  real_ = arena_.Allocate("evaluation", DType::kF32, {samples, size});
  if (options_.has_labelled_images) {
    const int64_t features = FeatureClassifierOptions().features;
    generated_features_ = arena_.Allocate("evaluation", DType::kF32, {samples, features});
    real_features_ = arena_.Allocate("evaluation", DType::kF32, {samples, features});
  }
  return absl::OkStatus();
}

absl::Status GanEvaluator::Prepare(const data::SampleSource& source, kernels::Stream& stream) {
  if (options_.rank != 0) return absl::OkStatus();
  source.FillReference(0, real_);
  if (!options_.has_labelled_images) return absl::OkStatus();
  FeatureClassifierOptions classifier;
  classifier.threads = options_.threads;
  TY_ASSIGN_OR_RETURN(classifier_, FeatureClassifier::Train(classifier, source, stream));
  TY_CHECK_EQ(classifier_->feature_count(), real_features_.dim(1));
  const std::vector<int64_t>& shape = options_.sample_shape;
  classifier_->Features(real_.Reshape({real_.dim(0), shape[0], shape[1], shape[2]}), real_features_, stream);
  return absl::OkStatus();
}

void GanEvaluator::Generate(int64_t chunk, int64_t rows, float* out, kernels::Stream& stream) {
  FillLatents(options_.seed, 0, kLatentStream, chunk * kChunk, latents_, stream);
  const TensorView& samples = generator_->Forward(latents_, stream);
  kernels::WaitForDevice(stream);
  std::memcpy(out, samples.data(), static_cast<size_t>(rows * generated_.dim(1)) * sizeof(float));
}

absl::StatusOr<std::map<std::string, double>> GanEvaluator::Evaluate(
    comm::Communicator* communicator, const std::function<absl::StatusOr<bool>()>& should_stop,
    kernels::Stream& stream) {
  const int64_t samples = options_.gan.evaluation_samples;
  const int64_t chunks = (samples + kChunk - 1) / kChunk, ranks = options_.world_size;
  const auto rows_of = [&](int64_t chunk) { return std::clamp<int64_t>(samples - chunk * kChunk, 0, kChunk); };
  std::vector<int64_t> bytes(static_cast<size_t>(ranks));
  const int64_t row_bytes = generated_.dim(1) * int64_t{sizeof(float)};
  for (int64_t first = 0; first < chunks; first += ranks) {
    TY_ASSIGN_OR_RETURN(const bool stops, should_stop());
    if (stops) return absl::CancelledError("evaluation was broken off");
    const int64_t own = first + options_.rank;
    float* const round = generated_.as<float>() + first * kChunk * generated_.dim(1);
    float* const place = round + options_.rank * kChunk * generated_.dim(1);
    if (rows_of(own) > 0) Generate(own, rows_of(own), place, stream);
    if (ranks == 1) continue;
    for (int64_t rank = 0; rank < ranks; ++rank) {
      bytes[static_cast<size_t>(rank)] = rows_of(first + rank) * row_bytes;
    }
    // A rank without rows in the last round has its place beyond the buffer; it gives no byte of it.
    TY_RETURN_IF_ERROR(communicator->AllGatherBytes(rows_of(own) > 0 ? place : round, bytes, round));
  }
  if (options_.rank != 0) return std::map<std::string, double>();
  return Score(stream);
}

absl::StatusOr<std::map<std::string, double>> GanEvaluator::Score(kernels::Stream& stream) {
  const int64_t samples = options_.gan.evaluation_samples;
  const TensorView generated = generated_.Slice(0, samples);
  std::map<std::string, double> scores;
  scores["sliced_wasserstein"] = SlicedWasserstein(generated, real_, kProjections, kProjectionSeed, stream);
  if (!options_.centers.empty()) {
    const ModeCoverage coverage = MeasureModes(generated, options_.centers, options_.mode_radius);
    scores["modes_covered"] = static_cast<double>(coverage.modes_covered);
    scores["high_quality_fraction"] = coverage.high_quality_fraction;
  }
  if (classifier_ != nullptr) {
    const std::vector<int64_t>& shape = options_.sample_shape;
    classifier_->Features(generated.Reshape({samples, shape[0], shape[1], shape[2]}), generated_features_, stream);
    // Of samples that are not finite there is no distance; a run under nan_policy skip may pass through such a time.
    absl::StatusOr<double> distance = FrechetDistance(generated_features_, real_features_);
    if (distance.ok()) scores["frechet_distance"] = *distance;
  }
  return scores;
}

absl::StatusOr<bool> GanEvaluator::WriteSamples(const std::string& path, kernels::Stream& stream) {
  const std::vector<int64_t>& shape = options_.sample_shape;
  if (shape.size() == 1 && shape[0] != 2) return false;
  const int64_t count = options_.gan.sample_count;
  for (int64_t first = 0; first < count; first += kChunk) {
    Generate(first / kChunk, std::min(kChunk, count - first), generated_.as<float>() + first * generated_.dim(1),
             stream);
  }
  const TensorView samples = generated_.Slice(0, count);
  if (shape.size() == 3) {
    const auto columns = static_cast<int>(std::ceil(std::sqrt(static_cast<double>(count))));
    TY_RETURN_IF_ERROR(data::WritePngGrid(path, samples.Reshape({count, shape[0], shape[1], shape[2]}), columns));
    return true;
  }
  const TensorView real = real_ ? real_ : TensorView(generated_.data(), DType::kF32, {0, 2});
  std::vector<float> pixels = ScatterPlot(real, samples);
  TY_RETURN_IF_ERROR(
      data::WritePngGrid(path, TensorView(pixels.data(), DType::kF32, {1, 3, kScatterExtent, kScatterExtent}), 1));
  return true;
}

}  // namespace trainyard::train
