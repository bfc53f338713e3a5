// Training batches of a sample set: each row is one sample, cut or padded to sequence_length, with its weight.
//
// Row: tokens t_0 .. of the sample, at most sequence_length of them as inputs; the target of position i is token i + 1
// if that is a label, else kIgnoredTarget; padding is token 0 with ignored targets. Attention is causal and padding
// stands at the end, so it changes nothing of the sample's numbers.
//
// The loss of a step of B samples (over all ranks and micro-batches) is
//
//   L = (1/B) sum_i w_i (mean cross-entropy over the labels of sample i),   mean of w over the set = 1
//
// which is the loss that selection is about (influence-distillation.md 2: a sample's loss is the mean over its labels).
// A trainer divides by B * sequence_length positions whatever the targets, so each label's weight is
// w_i sequence_length / labels_i, and no count has to be agreed on by the ranks.
//
// Samples without labels in their first sequence_length + 1 tokens, or with weight 0, are left out. Epoch e is a
// permutation of the rest keyed by (seed, e), as in loader.h, and cut over ranks likewise.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/data/batch_source.h"
#include "worker/data/loader.h"
#include "worker/data/sample_set.h"

namespace trainyard::data {

// One row of the layout above, of `length` positions. `weight` is that of each label; weights may be null.
struct SampleRow {
  int32_t* tokens = nullptr;
  int32_t* targets = nullptr;
  float* weights = nullptr;
  int64_t length = 0;
};
void WriteSampleRow(const std::vector<int32_t>& tokens, int64_t label_begin, double weight, const SampleRow& row);

// Not thread-safe.
class SampleLoader final : public BatchSource {
 public:
  // options.directory is a sample set. FailedPrecondition if no sample has a label within the length, or the set's
  // vocabulary exceeds the model's; errors of SampleSet::Open.
  static absl::StatusOr<std::unique_ptr<SampleLoader>> Open(const LoaderOptions& options);

  absl::Status NextBatch(const BatchViews& batch) override;
  absl::StatusOr<int64_t> ValidationBatch(int64_t first, const BatchViews& batch) const override;
  bool is_weighted() const override { return true; }
  LoaderPosition position() const override { return position_; }
  absl::Status Restore(const LoaderPosition& position) override;
  int64_t validation_rows() const override { return static_cast<int64_t>(validation_.size()); }
  int32_t end_of_text_id() const override { return set_.info().end_of_text_id; }
  std::string Fingerprint() const override;

  int64_t train_rows() const { return static_cast<int64_t>(train_.size()); }
  const SampleSet& set() const { return set_; }

 private:
  SampleLoader(LoaderOptions options, SampleSet set) : options_(std::move(options)), set_(std::move(set)) {}
  // `weight` of the sample; for validation, each label then has weight 1.
  absl::Status CopyRow(int64_t sample, const BatchViews& batch, int64_t row, bool is_validation) const;

  const LoaderOptions options_;
  const SampleSet set_;
  std::vector<int64_t> train_, validation_;  // numbers in the set
  double mean_weight_ = 1;
  LoaderPosition position_;
};

}  // namespace trainyard::data
