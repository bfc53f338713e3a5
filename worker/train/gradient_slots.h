// Gradients of a network in memory that layers take turns to use: for trainings that keep only parts of them.
//
// Blocks use two slots alternately, each as long as the longest block: while one block's backward writes, the gradients
// of the one before are on their way. Embedding and head have a slot together if they are two matrices, for the one is
// begun when the other has long been sent; a tied head is written from the first op to the last, and has one alone.
#pragma once

#include <vector>

#include "kernels/core/arena.h"
#include "worker/model/config.h"
#include "worker/model/parameters.h"

namespace trainyard::train {

struct GradientSlots {
  model::NetworkTensors tensors;  // f32
  // By layer (Parameter::layer): the one that has used its slot before it in a backward; -1: none has.
  std::vector<int> previous;
};

// Booked under "gradients".
GradientSlots AllocateGradientSlots(const model::ModelConfig& config, kernels::Arena& arena);

}  // namespace trainyard::train
