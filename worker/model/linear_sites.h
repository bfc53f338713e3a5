// The linear layers of a network's blocks: what a linear scheme computes.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/core/dtype.h"
#include "worker/linear/linear_scheme.h"
#include "worker/model/config.h"

namespace trainyard::model {

struct BlockSites {
  linear::LinearSite qkv, output, gate_up, down;
};

// One entry a block; names are those of the weights without ".weight", numbers 4 * block + place. A layer that its
// block does not have (BlockShape) keeps its number and has no name and no sizes.
std::vector<BlockSites> ListLinearSites(const ModelConfig& config, int64_t rows, kernels::DType storage);

// Calls body(site) for all that exist, in forward order.
template <typename Body>
void ForEachSite(const std::vector<BlockSites>& blocks, Body&& body) {
  for (const BlockSites& block : blocks) {
    for (const linear::LinearSite* site : {&block.qkv, &block.output, &block.gate_up, &block.down}) {
      if (site->out > 0) body(*site);
    }
  }
}

}  // namespace trainyard::model
