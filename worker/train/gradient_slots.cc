#include "worker/train/gradient_slots.h"

#include <algorithm>
#include <cstdint>
#include <utility>

namespace trainyard::train {
namespace {

using kernels::DType;
using kernels::TensorView;

enum Slot { kEvenBlocks, kOddBlocks, kHead, kEmbedding, kSlots };

}  // namespace

GradientSlots AllocateGradientSlots(const model::ModelConfig& config, kernels::Arena& arena) {
  const std::vector<model::Parameter> parameters = ListParameters(config);
  const int last = static_cast<int>(config.layers) + 1;
  std::vector<int64_t> elements(static_cast<size_t>(last) + 1);
  for (const model::Parameter& parameter : parameters)
    elements[static_cast<size_t>(parameter.layer)] += parameter.size();

  GradientSlots slots;
  slots.previous.assign(elements.size(), -1);
  std::vector<Slot> slot_of(elements.size(), kHead);
  slot_of[0] = config.tied_head ? kEmbedding : kHead;
  int users[kSlots] = {-1, -1, -1, -1};
  int64_t lengths[kSlots] = {};
  int blocks = 0;
  for (int layer = last; layer >= 0; --layer) {
    const auto i = static_cast<size_t>(layer);
    // A block without parameters uses nothing, and must not be waited for.
    if (elements[i] == 0) continue;
    if (layer > 0 && layer < last) slot_of[i] = blocks++ % 2 == 0 ? kEvenBlocks : kOddBlocks;
    const Slot slot = slot_of[i];
    slots.previous[i] = std::exchange(users[slot], layer);
    lengths[slot] = std::max(lengths[slot], elements[i]);
  }
  TensorView memory[kSlots];
  for (int slot = 0; slot < kSlots; ++slot) {
    if (lengths[slot] > 0) memory[slot] = arena.Allocate("gradients", DType::kF32, {lengths[slot]});
  }

  std::vector<TensorView> all;
  std::vector<int64_t> used(elements.size());
  for (const model::Parameter& parameter : parameters) {
    const auto layer = static_cast<size_t>(parameter.layer);
    const TensorView flat = memory[slot_of[layer]].Slice(used[layer], parameter.size());
    used[layer] += parameter.size();
    all.push_back(parameter.is_matrix() ? flat.Reshape({parameter.shape[0], parameter.shape[1]}) : flat);
  }
  slots.tensors = BindTensors(config, std::move(all));
  return slots;
}

}  // namespace trainyard::train
