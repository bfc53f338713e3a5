// One-shot pruning of a whole network in one forward pass over all calibration tokens: each linear layer of the blocks
// is pruned when the forward reaches it, by the inputs it gets from the layers pruned before it, and goes on with its
// new weights. So every layer is fitted to the pruned model's own activations, and no activation is computed twice.
//
// Embedding, norms, biases and LM head stay. q, k and v, and gate and up, are matrices of their own, as in the files.
#pragma once

#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/core/stream.h"
#include "worker/model/config.h"
#include "worker/model/parameters.h"
#include "worker/prune/one_shot.h"

namespace trainyard::prune {

struct Calibration {
  int64_t sequences = 0;  // 0: none, which is enough for magnitude
  int64_t sequence_length = 0;
  // Fills i32 (sequences, sequence_length) with tokens; what it leaves as targets is not used.
  absl::FunctionRef<absl::Status(const kernels::TensorView& tokens, const kernels::TensorView& targets)> load;
};

struct PrunedMatrix {
  std::string name;  // of the Hugging Face tensor
  int64_t rows = 0;
  int64_t cols = 0;
  std::vector<uint8_t> kept;  // an element each
};

// InvalidArgument if the group does not divide a row, or the method needs inputs and there are none;
// FailedPrecondition, naming the matrix, for inputs that are not finite. `weights`: f32, overwritten, also when it
// fails.
absl::StatusOr<std::vector<PrunedMatrix>> PruneModel(const model::ModelConfig& config,
                                                     const model::NetworkTensors& weights,
                                                     const OneShotOptions& options, const Calibration& calibration,
                                                     kernels::Stream& stream);

}  // namespace trainyard::prune
