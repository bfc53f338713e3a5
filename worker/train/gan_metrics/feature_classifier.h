// A small classifier that trains itself on labelled images; the values before its last layer are the features of a
// Frechet distance that needs no download. Three conv4x4/2 (16, 32, 64 filters) and a linear layer with leaky ReLU
// after each, then linear -> classes; softmax cross-entropy, Adam.
//
// The same source and options give the same bits, whatever the threads: distances of two runs can be compared.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"
#include "worker/data/images/sample_source.h"

namespace trainyard::train {

struct FeatureClassifierOptions {
  int64_t features = 64;
  int64_t batch = 64;
  int64_t steps = 400;
  float learning_rate = 1e-3f;
  uint64_t seed = 20240229;  // not the job's: features should be the same in all runs over a data set
  int threads = 1;           // of the streams, at most
};

class FeatureClassifier {
 public:
  // Trains. InvalidArgument if the source has no labels or is not of images; ResourceExhausted without memory.
  static absl::StatusOr<std::unique_ptr<FeatureClassifier>> Train(const FeatureClassifierOptions& options,
                                                                  const data::SampleSource& source,
                                                                  kernels::Stream& stream);
  virtual ~FeatureClassifier() = default;

  virtual int64_t feature_count() const = 0;
  // images: f32 (n, channels, 32, 32), any n; features: f32 (n, feature_count), overwritten.
  virtual void Features(const kernels::TensorView& images, const kernels::TensorView& features,
                        kernels::Stream& stream) = 0;
  // Share of right answers among the first `samples` of `source` (FillReference); in training data if it is the same.
  virtual double Accuracy(const data::SampleSource& source, int64_t samples, kernels::Stream& stream) = 0;
};

}  // namespace trainyard::train
