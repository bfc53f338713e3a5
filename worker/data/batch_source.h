// Where a training gets its rows from: a token stream cut into windows (loader.h), or samples with weights
// (sample_loader.h). The rows of a run are one endless sequence, the same for every number of ranks.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/core/tensor.h"

namespace trainyard::data {

// Where the run is in its sample sequence; equal on all ranks, part of the checkpoint.
struct LoaderPosition {
  int64_t epoch = 0;
  int64_t next_sample = 0;  // of this epoch
};
inline bool operator==(const LoaderPosition& a, const LoaderPosition& b) {
  return a.epoch == b.epoch && a.next_sample == b.next_sample;
}

// The target of positions that count for nothing, as kernels/loss has it.
inline constexpr int32_t kIgnoredTarget = -100;

// One micro-batch of a rank: i32 of (rows, sequence_length) or the same elements flat, and f32 weights of the targets'
// losses where the source has them (is_weighted), else no view.
struct BatchViews {
  kernels::TensorView tokens, targets;
  kernels::TensorView weights = {};
};

class BatchSource {
 public:
  virtual ~BatchSource() = default;

  // Fills this rank's rows of the next global micro-batch and moves the position on; a failed call leaves it.
  virtual absl::Status NextBatch(const BatchViews& batch) = 0;

  // Rows first, first + 1, ... of the validation split, independent of position and rank. Rows past the last get token
  // 0 and ignored targets. Weights of validation are 1. Returns the number of real rows.
  virtual absl::StatusOr<int64_t> ValidationBatch(int64_t first, const BatchViews& batch) const = 0;

  // True if NextBatch writes weights. The loss of a step is then sum(weight * loss of the target) over its number of
  // positions, ignored ones included: the weights are made so that this is the weighted mean over samples.
  virtual bool is_weighted() const = 0;

  virtual LoaderPosition position() const = 0;
  // OutOfRange for a position that this source does not have.
  virtual absl::Status Restore(const LoaderPosition& position) = 0;
  virtual int64_t validation_rows() const = 0;
  virtual int32_t end_of_text_id() const = 0;  // -1: none
  // A position means something only under an equal fingerprint.
  virtual std::string Fingerprint() const = 0;
};

}  // namespace trainyard::data
