// The network in double precision, written straight from the formulas and sharing no code with the ops: what losses,
// logits and (by differences) gradients are checked against.
#pragma once

#include <cstdint>
#include <vector>

#include "worker/model/config.h"

namespace trainyard::model::testing {

// `weights`: as ListParameters, row-major. tokens: batch sequences of equal length, one after another.
// Returns (tokens.size(), vocab_size) logits.
std::vector<double> ReferenceLogits(const ModelConfig& config, const std::vector<std::vector<double>>& weights,
                                    const std::vector<int32_t>& tokens, int64_t batch);

// Mean of the losses of targets >= 0.
double ReferenceLoss(const ModelConfig& config, const std::vector<std::vector<double>>& weights,
                     const std::vector<int32_t>& tokens, const std::vector<int32_t>& targets, int64_t batch);

// Small shapes that between them have every option of the architecture.
ModelConfig TinyLlama();   // grouped heads, own head
ModelConfig TinyQwen2();   // tied head, bias on q, k, v
ModelConfig TinyLlama3();  // Llama's attention_bias on all four, scaled rotary frequencies, head_dim of its own

// Blocks of different shapes: ragged groups, a KV head without readers (the first of the fourth block), heads out of
// order, no attention, no MLP, nothing at all; with all biases.
ModelConfig TinyPruned();
ModelConfig TinyPrunedEnds();  // first and last block empty; tied head

}  // namespace trainyard::model::testing
