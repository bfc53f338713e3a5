// What a GAN learns from: images, or points of a known distribution.
//
// The samples of a run are one endless sequence, a function of the seed: step s of a run with R ranks and `rows`
// samples a rank uses samples s * R * rows .. (s + 1) * R * rows - 1, of which rank r takes the r-th part. So there is
// no position to save, and the same global batch gives the same sequence for every number of ranks. A batch may run
// over from one epoch into the next.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/core/tensor.h"

namespace trainyard::data {

struct BatchKey {
  uint64_t seed = 0;
  int64_t step = 0;  // 0-based
  int rank = 0;
  int world_size = 1;
};

// Immutable once made; safe from any thread.
class SampleSource {
 public:
  virtual ~SampleSource() = default;

  virtual std::vector<int64_t> sample_shape() const = 0;  // {channels, 32, 32} or {dim}
  int64_t sample_size() const;
  // Samples of an epoch; 0 for sources that draw new ones for ever.
  virtual int64_t count() const = 0;
  virtual int class_count() const { return 0; }  // labels are 0 .. class_count - 1; 0: there are none

  // Fills samples, f32 (rows, sample_shape) or the same elements flat, with this rank's part of the batch; labels, if
  // given (and there are any), i32 (rows).
  void FillBatch(const BatchKey& key, const kernels::TensorView& samples, const kernels::TensorView& labels = {}) const;

  // Samples number first, first + 1, ... in the order of the files (from the start again after the last), for scores;
  // of a synthetic source, samples that no batch contains.
  void FillReference(int64_t first, const kernels::TensorView& samples, const kernels::TensorView& labels = {}) const;

  // Identifies the samples and their order: equal fingerprints, equal batches.
  virtual std::string Fingerprint() const = 0;

 protected:
  // One sample of the sequence. `sample` numbers the run's sequence; *label may be left alone.
  virtual void Draw(uint64_t seed, int64_t sample, float* values, int32_t* label) const = 0;
  virtual void Reference(int64_t index, float* values, int32_t* label) const = 0;
};

}  // namespace trainyard::data
