#include "worker/model/linear_sites.h"

#include "absl/strings/str_cat.h"

namespace trainyard::model {

std::vector<BlockSites> ListLinearSites(const ModelConfig& config, int64_t rows, kernels::DType storage) {
  std::vector<BlockSites> blocks;
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    const auto site = [&](const char* name, int64_t place, int64_t in, int64_t out) {
      return linear::LinearSite{
          .name = absl::StrCat("layers.", layer, ".", name),
          .index = static_cast<uint32_t>(4 * layer + place),
          .rows = rows,
          .in = in,
          .out = out,
          .storage = storage,
      };
    };
    const BlockShape shape = config.block_shape(layer);
    BlockSites& block = blocks.emplace_back();
    if (shape.has_attention()) {
      block.qkv = site("qkv", 0, config.hidden_size, config.qkv_width(shape));
      block.output = site("output", 1, config.attention_width(shape), config.hidden_size);
    }
    if (shape.has_mlp()) {
      block.gate_up = site("gate_up", 2, config.hidden_size, 2 * shape.intermediate);
      block.down = site("down", 3, shape.intermediate, config.hidden_size);
    }
  }
  return blocks;
}

}  // namespace trainyard::model
