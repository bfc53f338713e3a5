// Documents of a data set: the tokens between two end-of-text tokens, which end their document. Longer ones are cut
// into pieces of the sequence length, each a document of its own (DarwinLM's code does not pack). A data set without an
// end-of-text token is one document a shard.
//
// The train split is halved, as the authors do: calibration and fine-tuning read documents of its first half, from the
// start; fitness those of its second half. So a search never measures on what it trains on, and neither touches the
// validation split.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/data/dataset.h"
#include "worker/data/token_shard.h"

namespace trainyard::prune {

enum class Half { kFirst, kSecond };

struct DocumentOptions {
  std::string directory;
  Half half = Half::kFirst;
  int64_t sequence_length = 0;  // 2 or more
  int64_t most_tokens = 0;      // the pool is closed by the document that reaches this
  int64_t vocab_size = 0;       // of the model
};

using Document = std::vector<int32_t>;

// Not thread-safe. Reads its half once, up to most_tokens.
class DocumentPool {
 public:
  // FailedPrecondition if the half holds no document of two tokens; InvalidArgument for a data set with more words than
  // the model; DataLoss for damaged shards.
  static absl::StatusOr<DocumentPool> Open(const DocumentOptions& options);

  int64_t size() const { return static_cast<int64_t>(documents_.size()); }
  int64_t token_count() const { return token_count_; }
  const Document& document(int64_t index) const { return documents_[static_cast<size_t>(index)]; }

  // Documents without replacement, in an order that follows from (seed, draw), until they have `tokens` tokens. The
  // last one is cut to hit the number exactly, or overshoots. FailedPrecondition, with both numbers, if the pool has
  // fewer.
  absl::StatusOr<std::vector<Document>> Draw(uint64_t seed, int64_t draw, int64_t tokens, bool cut_last) const;

 private:
  DocumentPool() = default;

  std::string name_;  // for errors
  std::vector<Document> documents_;
  int64_t token_count_ = 0;
};

}  // namespace trainyard::prune
