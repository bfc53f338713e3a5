// One candidate of a search: the dense model with its modules at a genome's levels, fine-tuned for a moment and
// measured against the dense model (DarwinLM, arXiv:2502.07780, training-aware selection).
//
// Enforcement says what is trained: the small network itself (shrink), the large one with what was pruned set back to
// zero after every step (mask), or the large one as it is (none, the authors' code: what was pruned grows again).
//
// Models lie in the memory of their stream's device, which every function here leaves idle. Stitching is the host's
// work; so are the zeros of `mask`.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/core/arena.h"
#include "kernels/core/stream.h"
#include "proto/spec/prune_search_options.h"
#include "worker/data/loader.h"
#include "worker/linear/linear_scheme.h"
#include "worker/model/config.h"
#include "worker/model/parameters.h"
#include "worker/prune/shrink.h"
#include "worker/prune/task/bucket_networks.h"
#include "worker/prune/task/database.h"
#include "worker/prune/task/documents.h"

namespace trainyard::prune {

// A model in memory of its own, f32 or bf16.
struct LoadedModel {
  model::ModelConfig config;
  std::unique_ptr<kernels::Arena> arena;
  model::NetworkTensors weights;
};
absl::StatusOr<LoadedModel> AllocateModel(const model::ModelConfig& config, kernels::DType dtype,
                                          kernels::Device device = kernels::Device::kCpu);
// From a model folder; also InvalidArgument for a model that structured pruning has been at, whose levels would be of
// blocks of different sizes.
absl::StatusOr<LoadedModel> LoadDenseModel(const std::string& directory, kernels::DType dtype, kernels::Stream& stream);

// The small network of a genome, with the database's weights.
absl::StatusOr<LoadedModel> StitchShrunk(const LoadedModel& dense, const Database& database, const Genome& genome,
                                         bool prune_kv_heads, kernels::Stream& stream);
// The same as a network of the dense shape with zero columns.
absl::StatusOr<LoadedModel> StitchDense(const LoadedModel& dense, const Database& database, const Genome& genome,
                                        kernels::Stream& stream);

struct FineTuneArgs {
  spec::PruneFineTuneOptions options;
  int64_t sequence_length = 0;
  const std::vector<BlockRemoval>* removals = nullptr;  // for mask: the dense shape's columns that stay zero
  std::function<bool()> should_stop;
};
// AdamW with PyTorch's defaults (betas 0.9 and 0.999, epsilon 1e-8) on all parameters at a constant rate, each batch
// the mean loss of its documents' tokens. With bf16 as master the weights and moments are bf16 and nothing else is
// kept, as in the authors' code; the model must then be bf16. bf16 models with f32 masters are updated there. Returns
// the mean loss of the last batch, nothing for no documents. FailedPrecondition if a loss is not finite, Cancelled if
// stopped.
absl::StatusOr<std::optional<double>> FineTune(const FineTuneArgs& args, const std::vector<Document>& documents,
                                               LoadedModel& model, kernels::Stream& stream);

// How far a model is from the dense one, as means over the positions that have a next token.
struct Distance {
  double kl = 0;    // KL(dense || model), of the top_k words if that is given
  double loss = 0;  // next-token cross-entropy of the model
  double dense_loss = 0;
  int64_t positions = 0;
};

// Measures models against one dense model.
class DistanceMeter {
 public:
  // Everything is borrowed. `top_k` 0: the whole vocabulary. Logits of one document are held at a time, in memory for
  // the longest: 2 * sequence length * vocabulary numbers.
  DistanceMeter(const LoadedModel* dense, int64_t sequence_length, int64_t top_k, kernels::Stream* stream);

  // InvalidArgument if no document has a position; FailedPrecondition if the distance is not finite; ResourceExhausted
  // without memory; Cancelled if stopped.
  absl::StatusOr<Distance> Measure(const LoadedModel& model, const std::vector<Document>& documents,
                                   const std::function<bool()>& should_stop);

 private:
  absl::Status Allocate();

  const LoadedModel* const dense_;
  const int64_t sequence_length_;
  const int64_t top_k_;
  kernels::Stream* const stream_;
  const std::unique_ptr<linear::LinearScheme> scheme_;
  BucketNetworks dense_networks_;
  kernels::Arena arena_;                                 // of the next three
  kernels::TensorView dense_logits_, logits_, numbers_;  // (sequence length, vocabulary) and (3, sequence length)
};

// The first `batches` batches of `rows` validation windows as documents; empty if the data set has none.
absl::StatusOr<std::vector<Document>> ValidationDocuments(const data::Loader& loader, int64_t batches, int64_t rows,
                                                          int64_t sequence_length);

}  // namespace trainyard::prune
