// The generator at work: samples, and scores of them against real ones.
//
// Samples come from latents that are the same in every evaluation of a run, in chunks of fixed length and number, so
// scores depend on neither the number of ranks nor what was drawn before. The ranks share the chunks out and rank 0
// computes the scores:
//
//   sliced_wasserstein                              of all data
//   modes_covered, high_quality_fraction            of mixtures (a sample within 3 standard deviations of a mode)
//   frechet_distance                                of labelled images; features from a classifier trained on them
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/core/arena.h"
#include "kernels/core/stream.h"
#include "proto/spec/qoda_gan_options.h"
#include "worker/comm/communicator.h"
#include "worker/data/images/sample_source.h"
#include "worker/model/gan/gan_net.h"
#include "worker/train/gan_metrics/feature_classifier.h"

namespace trainyard::train {

struct GanEvaluatorOptions {
  spec::QodaGanOptions gan;
  std::vector<int64_t> sample_shape;
  std::vector<std::vector<double>> centers;  // of a mixture; else empty
  double mode_radius = 0;
  bool has_labelled_images = false;
  int rank = 0;
  int world_size = 1;
  int threads = 1;
  kernels::Device device = kernels::Device::kCpu;  // of the generator and the classifier; scores are made by the host
  uint64_t seed = 0;
};

class GanEvaluator {
 public:
  // `weights`: flat, of the generator to be scored; borrowed. Over a trainer that counts, the evaluator counts too.
  static absl::StatusOr<std::unique_ptr<GanEvaluator>> CreateCounting(const GanEvaluatorOptions& options,
                                                                      const kernels::TensorView& weights);
  static absl::StatusOr<std::unique_ptr<GanEvaluator>> Create(const GanEvaluatorOptions& options,
                                                              const kernels::TensorView& weights);

  // What rank 0 needs of the real samples; trains the classifier. Other ranks return at once.
  absl::Status Prepare(const data::SampleSource& source, kernels::Stream& stream);

  // Collective. Empty on ranks other than 0. `should_stop` is asked before each round of chunks, on all ranks alike,
  // and ends it early with Cancelled. `communicator` may be null for one rank.
  absl::StatusOr<std::map<std::string, double>> Evaluate(comm::Communicator* communicator,
                                                         const std::function<absl::StatusOr<bool>()>& should_stop,
                                                         kernels::Stream& stream);

  // Writes options.gan.sample_count samples as one PNG: images in a grid; points of the plane, green, over real ones,
  // red. False, and no file, for points of other dimensions. Not collective.
  absl::StatusOr<bool> WriteSamples(const std::string& path, kernels::Stream& stream);

  const kernels::MemoryPlan& memory_plan() const { return arena_.plan(); }

 private:
  GanEvaluator(const GanEvaluatorOptions& options, kernels::Arena arena)
      : options_(options), arena_(std::move(arena)) {}
  absl::Status Allocate(const kernels::TensorView& weights);
  // Sample number chunk * kChunk and those after it, `rows` of them, to `out`. Leaves the device idle.
  void Generate(int64_t chunk, int64_t rows, float* out, kernels::Stream& stream);
  absl::StatusOr<std::map<std::string, double>> Score(kernels::Stream& stream);

  const GanEvaluatorOptions options_;
  kernels::Arena arena_;
  std::unique_ptr<model::GanNet> generator_;
  std::unique_ptr<FeatureClassifier> classifier_;
  kernels::TensorView latents_;
  kernels::TensorView generated_, real_;                    // (samples, size)
  kernels::TensorView generated_features_, real_features_;  // (samples, features)
};

}  // namespace trainyard::train
