// Networks over documents of any length: one for each of a few lengths, so that a short document does not cost as much
// as a long one. Positions behind a document's end hold token 0 and no target; attention looks back only, so they
// change nothing before them.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/core/arena.h"
#include "kernels/core/stream.h"
#include "worker/model/network.h"
#include "worker/prune/task/documents.h"

namespace trainyard::prune {

struct BucketOptions {
  int64_t most_documents = 1;   // of a batch
  int64_t sequence_length = 0;  // no document is longer
  kernels::DType dtype = kernels::DType::kF32;
};

// Not thread-safe.
class BucketNetworks {
 public:
  // Everything is borrowed. `gradients` is null for networks that only evaluate.
  BucketNetworks(const model::ModelConfig& config, const BucketOptions& options, const linear::LinearScheme* scheme,
                 const model::NetworkTensors* weights, const model::NetworkTensors* gradients, kernels::Stream* stream)
      : config_(config),
        options_(options),
        scheme_(scheme),
        weights_(weights),
        gradients_(gradients),
        stream_(stream) {}

  // The smallest network that holds the documents, which are loaded: tokens, and as targets the next token of each
  // position but a document's last. Documents lie `sequence` rows apart. ResourceExhausted without memory for it, which
  // is taken when a length first comes.
  struct Loaded {
    model::Network* network = nullptr;
    int64_t sequence = 0;
    int64_t rows = 0;       // of the network: batch * sequence
    int64_t positions = 0;  // with a target
  };
  absl::StatusOr<Loaded> Load(absl::Span<const Document> documents);

 private:
  struct Bucket {
    kernels::Arena arena;
    std::unique_ptr<model::Network> network;
  };

  const model::ModelConfig config_;
  const BucketOptions options_;
  const linear::LinearScheme* const scheme_;
  const model::NetworkTensors* const weights_;
  const model::NetworkTensors* const gradients_;
  kernels::Stream* const stream_;
  std::map<int64_t, Bucket> buckets_;  // by length
};

}  // namespace trainyard::prune
