#include "worker/prune/shrink.h"

#include <algorithm>
#include <cstring>
#include <initializer_list>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "kernels/core/dispatch.h"
#include "kernels/transform/take_lines.h"

namespace trainyard::prune {
namespace {

using kernels::DType;
using kernels::Stream;
using kernels::TensorView;
using model::BlockShape;
using model::BlockTensors;
using model::ModelConfig;

// The lines of a block that stay, ascending.
struct KeptLines {
  std::vector<int32_t> heads, kv_heads, channels;
};

std::vector<int32_t> Others(int64_t count, const std::vector<int32_t>& removed) {
  std::vector<int32_t> others;
  others.reserve(static_cast<size_t>(count) - removed.size());
  size_t next = 0;
  for (int32_t i = 0; i < count; ++i) {
    if (next < removed.size() && removed[next] == i) {
      ++next;
    } else {
      others.push_back(i);
    }
  }
  return others;
}

int64_t KvHeadOf(const BlockShape& shape, int32_t head) {
  return shape.kv_of_head.empty() ? head / (shape.q_heads / shape.kv_heads)
                                  : shape.kv_of_head[static_cast<size_t>(head)];
}

KeptLines Keep(const BlockShape& shape, const BlockRemoval& removal, bool prune_kv_heads) {
  KeptLines kept;
  kept.heads = Others(shape.q_heads, removal.heads);
  kept.channels = Others(shape.intermediate, removal.channels);
  if (kept.heads.empty()) return kept;
  const bool has_head_each = shape.kv_of_head.empty() && shape.kv_heads == shape.q_heads;
  kept.kv_heads = prune_kv_heads && has_head_each ? kept.heads : Others(shape.kv_heads, {});
  return kept;
}

BlockShape ShrunkShape(const BlockShape& shape, const KeptLines& kept) {
  BlockShape shrunk{.q_heads = static_cast<int64_t>(kept.heads.size()),
                    .kv_heads = static_cast<int64_t>(kept.kv_heads.size()),
                    .intermediate = static_cast<int64_t>(kept.channels.size()),
                    .kv_of_head = {}};
  std::vector<int32_t> new_number(static_cast<size_t>(shape.kv_heads), -1);
  for (size_t i = 0; i < kept.kv_heads.size(); ++i) {
    new_number[static_cast<size_t>(kept.kv_heads[i])] = static_cast<int32_t>(i);
  }
  for (const int32_t head : kept.heads) {
    shrunk.kv_of_head.push_back(new_number[static_cast<size_t>(KvHeadOf(shape, head))]);
  }
  return shrunk;
}

// Lines `width * l` .. `width * l + width - 1` from `begin` on, for every l of `lines`.
void AppendLines(const std::vector<int32_t>& lines, int64_t begin, int64_t width, std::vector<int32_t>* indices) {
  for (const int32_t line : lines) {
    for (int64_t i = 0; i < width; ++i) indices->push_back(static_cast<int32_t>(begin + line * width + i));
  }
}

void Take(const TensorView& from, std::vector<int32_t>& indices, int axis, const TensorView& to, Stream& stream) {
  if (!from) return;  // a bias that is not there
  const TensorView list(indices.data(), DType::kI32, {static_cast<int64_t>(indices.size())});
  const auto matrix = [](const TensorView& tensor) {
    return tensor.rank() == 2 ? tensor : tensor.Reshape({tensor.size(), 1});
  };
  TakeLines({.x = matrix(from), .indices = list, .y = matrix(to), .axis = axis}, stream);
}

void Copy(const TensorView& from, const TensorView& to) {
  if (!to) return;
  TY_CHECK(from.dtype() == to.dtype());
  TY_CHECK_EQ(from.bytes(), to.bytes());
  std::memcpy(to.data(), from.data(), static_cast<size_t>(to.bytes()));
}

void ShrinkAttention(const ModelConfig& config, const BlockShape& shape, const KeptLines& kept,
                     const BlockTensors& from, const BlockTensors& to, Stream& stream) {
  const int64_t width = config.head_dim;
  std::vector<int32_t> rows;  // q heads | k heads | v heads
  AppendLines(kept.heads, 0, width, &rows);
  AppendLines(kept.kv_heads, shape.q_heads * width, width, &rows);
  AppendLines(kept.kv_heads, (shape.q_heads + shape.kv_heads) * width, width, &rows);
  Take(from.qkv, rows, 0, to.qkv, stream);
  Take(from.qkv_bias, rows, 0, to.qkv_bias, stream);
  std::vector<int32_t> columns;
  AppendLines(kept.heads, 0, width, &columns);
  Take(from.output, columns, 1, to.output, stream);
  for (const auto part : {&BlockTensors::attention_norm, &BlockTensors::output_bias, &BlockTensors::qkv_scheme,
                          &BlockTensors::output_scheme}) {
    Copy(from.*part, to.*part);
  }
}

void ShrinkMlp(const BlockShape& shape, const KeptLines& kept, const BlockTensors& from, const BlockTensors& to,
               Stream& stream) {
  std::vector<int32_t> rows;  // gate | up
  AppendLines(kept.channels, 0, 1, &rows);
  AppendLines(kept.channels, shape.intermediate, 1, &rows);
  Take(from.gate_up, rows, 0, to.gate_up, stream);
  std::vector<int32_t> columns = kept.channels;
  Take(from.down, columns, 1, to.down, stream);
  for (const auto part : {&BlockTensors::mlp_norm, &BlockTensors::gate_up_scheme, &BlockTensors::down_scheme}) {
    Copy(from.*part, to.*part);
  }
}

// Columns `width * l` .. `width * l + width - 1` for every l of `lines`.
void ZeroLines(const TensorView& matrix, const std::vector<int32_t>& lines, int64_t width, Stream& stream) {
  if (lines.empty()) return;
  const int64_t cols = matrix.dim(1);
  kernels::DispatchFloat(matrix.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    T* const values = matrix.as<T>();
    stream.pool().ParallelFor(matrix.dim(0), 16, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        for (const int32_t line : lines) std::fill_n(values + row * cols + line * width, width, T{});
      }
    });
  });
}

absl::Status CheckList(const std::vector<int32_t>& list, int64_t count, const std::string& name) {
  for (size_t i = 0; i < list.size(); ++i) {
    if (list[i] < 0 || list[i] >= count) {
      return absl::InvalidArgumentError(absl::StrCat(name, "[", i, "]: ", list[i], " is not in [0, ", count, ")"));
    }
    if (i > 0 && list[i] <= list[i - 1]) {
      return absl::InvalidArgumentError(
          absl::StrCat(name, "[", i, "]: ", list[i], " does not come after ", list[i - 1]));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckRemovals(const ModelConfig& config, const std::vector<BlockRemoval>& removals) {
  if (static_cast<int64_t>(removals.size()) != config.layers) {
    return absl::InvalidArgumentError(
        absl::StrCat("removals of ", removals.size(), " blocks for a model of ", config.layers));
  }
  for (size_t layer = 0; layer < removals.size(); ++layer) {
    const BlockShape shape = config.block_shape(static_cast<int64_t>(layer));
    const std::string block = absl::StrCat("block ", layer, ": ");
    absl::Status status = CheckList(removals[layer].heads, shape.q_heads, block + "removed heads");
    status.Update(CheckList(removals[layer].channels, shape.intermediate, block + "removed channels"));
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

ModelConfig ShrunkConfig(const ModelConfig& config, const std::vector<BlockRemoval>& removals, bool prune_kv_heads) {
  TY_CHECK_EQ(static_cast<int64_t>(removals.size()), config.layers);
  ModelConfig shrunk = config;
  shrunk.blocks.clear();
  for (size_t layer = 0; layer < removals.size(); ++layer) {
    const BlockShape shape = config.block_shape(static_cast<int64_t>(layer));
    shrunk.blocks.push_back(ShrunkShape(shape, Keep(shape, removals[layer], prune_kv_heads)));
  }
  return Canonical(std::move(shrunk));
}

void Shrink(const ModelConfig& config, const model::NetworkTensors& weights, const std::vector<BlockRemoval>& removals,
            bool prune_kv_heads, const model::NetworkTensors& out, Stream& stream) {
  TY_CHECK_EQ(static_cast<int64_t>(removals.size()), config.layers);
  Copy(weights.embedding, out.embedding);
  for (size_t layer = 0; layer < removals.size(); ++layer) {
    const BlockShape shape = config.block_shape(static_cast<int64_t>(layer));
    const KeptLines kept = Keep(shape, removals[layer], prune_kv_heads);
    if (!kept.heads.empty()) {
      ShrinkAttention(config, shape, kept, weights.blocks[layer], out.blocks[layer], stream);
    }
    if (!kept.channels.empty()) ShrinkMlp(shape, kept, weights.blocks[layer], out.blocks[layer], stream);
  }
  Copy(weights.final_norm, out.final_norm);
  if (!config.tied_head) Copy(weights.head, out.head);
}

void ZeroColumns(const ModelConfig& config, const std::vector<BlockRemoval>& removals,
                 const model::NetworkTensors& weights, Stream& stream) {
  TY_CHECK_EQ(static_cast<int64_t>(removals.size()), config.layers);
  for (size_t layer = 0; layer < removals.size(); ++layer) {
    const BlockShape shape = config.block_shape(static_cast<int64_t>(layer));
    const BlockTensors& block = weights.blocks[layer];
    ZeroLines(block.output, removals[layer].heads, config.head_dim, stream);
    ZeroLines(block.down, removals[layer].channels, 1, stream);
    if (block.output_bias && static_cast<int64_t>(removals[layer].heads.size()) == shape.q_heads) {
      std::memset(block.output_bias.data(), 0, static_cast<size_t>(block.output_bias.bytes()));
    }
  }
}

}  // namespace trainyard::prune
