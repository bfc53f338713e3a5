// Structured pruning made real: the same weights without the query heads and MLP channels that were chosen to go
// (DarwinLM, arXiv:2502.07780, section 3.2; released code, utils.py), as a smaller network.
//
// A removed query head loses its rows of q and its columns of the output projection; a removed channel its row of gate,
// its row of up and its column of down. Keys and values:
//
//   one KV head a query head:  K and V rows go with their head if `prune_kv_heads`
//   grouped queries:           K and V stay whole, and a kept head still reads its old KV head, so that groups become
//                              ragged and a KV head may be left without readers
//   all heads of a block gone: no attention at all, and no K and V, norm or biases either
//
// The small network computes what the dense one computes with the removed columns of the output and down projections
// set to zero (ZeroColumns).
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "kernels/core/stream.h"
#include "worker/model/config.h"
#include "worker/model/parameters.h"

namespace trainyard::prune {

// What goes from one block; both ascending, none twice.
struct BlockRemoval {
  std::vector<int32_t> heads;     // query heads
  std::vector<int32_t> channels;  // of the MLP
};

// InvalidArgument, naming the block and the number, unless there is one removal a block, each ascending and in range.
absl::Status CheckRemovals(const model::ModelConfig& config, const std::vector<BlockRemoval>& removals);

// The shape that is left, in canonical form: if all blocks are left alike with regular groups, a plain configuration.
// The removals have passed CheckRemovals. `config` may have blocks of different shapes already.
model::ModelConfig ShrunkConfig(const model::ModelConfig& config, const std::vector<BlockRemoval>& removals,
                                bool prune_kv_heads);

// Fills `out`, tensors of ShrunkConfig(...), from `weights`, tensors of `config`; f32 or bf16, the same on both sides.
// Values are copied, never changed; the same for any number of threads.
void Shrink(const model::ModelConfig& config, const model::NetworkTensors& weights,
            const std::vector<BlockRemoval>& removals, bool prune_kv_heads, const model::NetworkTensors& out,
            kernels::Stream& stream);

// Sets the removed heads' columns of output projections and the removed channels' columns of down projections to zero,
// and the output bias of a block that loses all heads. `weights`: f32 or bf16, tensors of `config`.
void ZeroColumns(const model::ModelConfig& config, const std::vector<BlockRemoval>& removals,
                 const model::NetworkTensors& weights, kernels::Stream& stream);

}  // namespace trainyard::prune
