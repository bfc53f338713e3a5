#include "worker/model/linear_sites.h"

#include "absl/strings/str_cat.h"

namespace trainyard::model {

std::vector<BlockSites> ListLinearSites(const ModelConfig& config, int64_t rows, kernels::DType storage) {
  std::vector<BlockSites> blocks;
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    uint32_t index = static_cast<uint32_t>(4 * layer);
    const auto site = [&](const char* name, int64_t in, int64_t out) {
      return linear::LinearSite{
          .name = absl::StrCat("layers.", layer, ".", name),
          .index = index++,
          .rows = rows,
          .in = in,
          .out = out,
          .storage = storage,
      };
    };
    blocks.push_back({.qkv = site("qkv", config.hidden_size, config.qkv_width()),
                      .output = site("output", config.attention_width(), config.hidden_size),
                      .gate_up = site("gate_up", config.hidden_size, 2 * config.intermediate_size),
                      .down = site("down", config.intermediate_size, config.hidden_size)});
  }
  return blocks;
}

}  // namespace trainyard::model
