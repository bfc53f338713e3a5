// The samples that a selection chooses from, or selects for, in the order of their ids, so that nothing downstream
// depends on the order of the files. Samples without labels within the sequence length are left out and counted, as are
// those of the validation split.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/data/sample_set.h"
#include "worker/influence/gradient_features.h"

namespace trainyard::influence {

class SelectionPool {
 public:
  // `field` is what errors name: "select_data.pool". InvalidArgument if no sample is left or the set's vocabulary
  // exceeds the model's.
  static absl::StatusOr<SelectionPool> Open(const std::string& directory, const std::string& field,
                                            int64_t sequence_length, int64_t vocab_size);

  int64_t size() const { return static_cast<int64_t>(order_.size()); }
  int64_t unlabelled_count() const { return unlabelled_count_; }
  const data::SampleSet& set() const { return set_; }
  const data::SampleRecord& record(int64_t i) const { return set_.record(order_[static_cast<size_t>(i)]); }
  // At most sequence_length + 1 tokens: as many as a training row takes, the last as a target only.
  absl::StatusOr<Sample> At(int64_t i) const;
  // The whole sample.
  absl::StatusOr<std::vector<int32_t>> AllTokens(int64_t i) const;

  // Equal for equal samples whatever their order in the files.
  absl::StatusOr<std::string> Fingerprint() const;

  // InvalidArgument naming the first pair of ids if a sample of `target` is in this pool, by its tokens and labels.
  absl::Status CheckDisjoint(const SelectionPool& target) const;

 private:
  explicit SelectionPool(data::SampleSet set) : set_(std::move(set)) {}

  data::SampleSet set_;
  std::vector<int64_t> order_;
  int64_t sequence_length_ = 0, unlabelled_count_ = 0;
};

// `count` of the `size` samples that are not in `avoid`, at random by `seed`, in the order drawn; where too few are
// left, some of `avoid` too.
std::vector<int64_t> UniformLandmarks(int64_t size, int64_t count, uint64_t seed, const std::vector<int64_t>& avoid);

// k-means++ seeding (Arthur and Vassilvitskii, SODA 2007): each next one with a probability in proportion to its
// squared distance to the nearest one before. embeddings: (size, width).
std::vector<int64_t> SpreadLandmarks(const std::vector<float>& embeddings, int64_t width, int64_t count, uint64_t seed);

}  // namespace trainyard::influence
