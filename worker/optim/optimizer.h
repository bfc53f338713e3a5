// What turns gradients into new weights: the seam where optimizers plug in. An optimizer owns its moments (taken from
// the run's arena) and makes one explicit op call a parameter.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "kernels/core/arena.h"
#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"
#include "kernels/quant/coded_matrix.h"
#include "proto/spec/training_options.h"

namespace trainyard::optim {

// Rows of a matrix that count as a tensor of their own: q, k and v are one matrix here, and three tensors of a model
// file and of the papers.
struct OptimizerPart {
  std::string name;  // "model.layers.0.self_attn.q_proj.weight"
  int64_t row_begin = 0;
  int64_t rows = 0;
};

// What is updated. `master`, if there, is f32 and leads: the weight is its value rounded to nearest.
struct OptimizerParameter {
  std::string name;
  kernels::TensorView weight;             // f32 or bf16; without data if the weight is codes
  kernels::TensorView master;             // optional
  kernels::TensorView gradient;           // f32; free for the optimizer's own use once Update has read it
  bool decays = false;                    // weight decay applies: matrices, not norms and biases
  std::vector<OptimizerPart> parts = {};  // cover the matrix in order; none: it is one
  uint32_t index = 0;                     // number in the network: a name for random streams
  kernels::CodedMatrix coded = {};        // optional: all that there is of the weight, and no master
  // A shard: the views above are one-dimensional and hold elements first_element.. of the tensor, which has whole_size;
  // first_element is a multiple of 128. 0: they are the tensor.
  int64_t first_element = 0;
  int64_t whole_size = 0;
};

struct NamedTensor {
  std::string name;  // "adamw.m/layers.0.qkv.weight"
  kernels::TensorView tensor;
  // With whole_size above 0, `tensor` is elements part_begin.. of one of that many, the rest of which other ranks have.
  int64_t part_begin = 0;
  int64_t whole_size = 0;
};

struct UpdateArgs {
  int64_t update = 1;  // 1-based number of this update
  double learning_rate = 0;
  kernels::TensorView gradient_factor = {};  // f32 (1): what the gradients are multiplied with, for clipping
  int64_t steps = 0;                         // of the whole run, for schedules of the optimizer's own
  int ranks = 1;                             // whose mean the gradients are
  uint64_t seed = 0;                         // of the run, for random rounding and the like; equal on all ranks
};

// Which elements of a tensor are not zero by choice, as bits (kernels/prune/mask.h).
struct PruningMask {
  std::string name;  // of the part
  int64_t rows = 0;
  int64_t cols = 0;
  kernels::TensorView bits;  // u8
};

class Optimizer {
 public:
  virtual ~Optimizer() = default;
  virtual void Update(const UpdateArgs& args, kernels::Stream& stream) = 0;
  // Brings the weights into the form that is evaluated and exported after the last update; a second call changes
  // nothing. Weights and masters agree afterwards.
  virtual void Finalize(kernels::Stream&) {}
  // After Finalize: empty unless weights were pruned.
  virtual std::vector<PruningMask> pruning_masks() const { return {}; }
  // Numbers of the last update beside loss and norm, by name; the same ones on all ranks.
  virtual void AddMetrics(std::map<std::string, double>*) const {}
  // Everything that must be in a checkpoint; zero before the first update.
  virtual const std::vector<NamedTensor>& state() const = 0;
};

}  // namespace trainyard::optim
