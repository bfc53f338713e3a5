// Training and validation batches from a dataset folder.
//
// A window is sequence_length + 1 consecutive tokens of a shard, at stride sequence_length: its first sequence_length
// tokens are a row's input and its last sequence_length the row's targets. A shard of n tokens has
// (n - 1) / sequence_length windows; what is left at its end is not used.
//
// The samples of a run are one endless sequence, the same for every number of ranks: epoch e is a permutation of all
// windows, keyed by (seed, e). Each call of Next consumes world_size * rows samples, of which rank r takes the r-th
// part; a batch may run over from one epoch into the next, so that no sample is left out or used twice.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/core/tensor.h"
#include "worker/data/batch_source.h"
#include "worker/data/dataset.h"
#include "worker/data/token_shard.h"

namespace trainyard::data {

struct LoaderOptions {
  std::string directory;
  int sequence_length = 0;
  int rank = 0;
  int world_size = 1;
  uint64_t seed = 0;
  // The model's vocabulary. The dataset's must not be larger.
  int32_t vocab_size = 0;
};

// Not thread-safe; allocates only in Open.
class Loader final : public BatchSource {
 public:
  // FailedPrecondition if the train split has no window of that length or the dataset's vocabulary exceeds the
  // model's; DataLoss for damaged shards. A missing or short validation split means validation_windows() == 0.
  static absl::StatusOr<Loader> Open(const LoaderOptions& options);

  // Fills this rank's rows of the next global micro-batch and moves the position on. tokens and targets are i32 of
  // (rows, sequence_length) or the same elements flat; rows follow from their size and must be equal on all ranks.
  // DataLoss, with shard and offset, if a token is not below the model's vocab_size; the position then stays.
  absl::Status Next(const kernels::TensorView& tokens, const kernels::TensorView& targets);

  LoaderPosition position() const override { return position_; }
  // OutOfRange for a position that this dataset and sequence length do not have.
  absl::Status Restore(const LoaderPosition& position) override;

  // Windows first, first + 1, ... of the validation split, in the order of the file and independent of seed, position
  // and rank: each caller asks for its own part. Rows past the last window get token 0 and targets kIgnoredTarget.
  // Returns the number of real rows.
  absl::StatusOr<int64_t> Validation(int64_t first, const kernels::TensorView& tokens,
                                     const kernels::TensorView& targets) const;

  absl::Status NextBatch(const BatchViews& batch) override { return Next(batch.tokens, batch.targets); }
  absl::StatusOr<int64_t> ValidationBatch(int64_t first, const BatchViews& batch) const override {
    return Validation(first, batch.tokens, batch.targets);
  }
  bool is_weighted() const override { return false; }
  int64_t validation_rows() const override { return validation_.window_count; }
  int32_t end_of_text_id() const override { return info_.end_of_text_id; }

  int64_t train_windows() const { return train_.window_count; }
  int64_t validation_windows() const { return validation_.window_count; }
  const DatasetInfo& dataset() const { return info_; }
  // Identifies dataset, sequence length and seed: a position means something only under an equal fingerprint.
  std::string Fingerprint() const override;

 private:
  struct Windows {
    std::vector<TokenShard> shards;
    std::vector<int64_t> first_window;  // of each shard; one more than shards
    int64_t window_count = 0;
  };
  Loader(LoaderOptions options, DatasetInfo info) : options_(std::move(options)), info_(std::move(info)) {}
  absl::StatusOr<Windows> OpenWindows(Split split) const;
  // Rows of a (rows, sequence_length) pair of views; checks shapes and dtypes.
  int64_t RowCount(const kernels::TensorView& tokens, const kernels::TensorView& targets) const;
  absl::Status CopyWindow(const Windows& windows, int64_t window, int32_t* tokens, int32_t* targets) const;

  LoaderOptions options_;
  DatasetInfo info_;
  Windows train_, validation_;
  LoaderPosition position_;
};

}  // namespace trainyard::data
