// Second moments of the inputs of attention's output projection and of the MLP's down projection, of every block of the
// dense model: H = (2 / N) sum X^T X over N sequences (DarwinLM's code, struct_pruner.py). Each block sees what the
// dense blocks before it give, so one forward serves all and layers can be pruned apart.
//
// Files: hessians/layers.<block>.<attention or mlp>.safetensors with "hessian" F32 (columns, columns), and in the
// metadata "sequences" and "tokens".
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/core/stream.h"
#include "proto/spec/prune_search_options.h"
#include "worker/comm/communicator.h"
#include "worker/model/config.h"
#include "worker/model/parameters.h"
#include "worker/prune/task/documents.h"

namespace trainyard::prune {

// "attention", "mlp".
const char* Name(spec::PruneModule module);

std::string HessianPath(const std::string& directory, int64_t block, spec::PruneModule module);

struct CalibrationArgs {
  const model::ModelConfig* config = nullptr;
  const model::NetworkTensors* weights = nullptr;  // f32
  const std::vector<Document>* documents = nullptr;
  int64_t sequence_length = 0;
  std::string directory;  // rank 0 writes here
  // Moments that are held at a time; for more, the forward is made again for the blocks that are left.
  int64_t most_bytes = int64_t{4} << 30;
  // Null for one rank. Each rank takes every ranks-th document; sums are added in rank order, so they do not depend on
  // timing, but, being f32, on the number of ranks.
  comm::Communicator* communicator = nullptr;
  std::function<absl::StatusOr<bool>()> agree_to_stop;  // a collective, asked now and then
};

// Returns the bytes that were written (0 on ranks above 0). Cancelled if asked to stop. FailedPrecondition for sums
// that are not finite, ResourceExhausted if there is no memory for the moments of one block. The weights lie in the
// memory of the stream's device.
absl::StatusOr<int64_t> Calibrate(const CalibrationArgs& args, kernels::Stream& stream);

// f32 (columns, columns).
absl::StatusOr<std::vector<float>> ReadHessian(const std::string& path, int64_t columns);

}  // namespace trainyard::prune
