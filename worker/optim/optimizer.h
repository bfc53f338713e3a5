// What turns gradients into new weights: the seam where optimizers plug in. An optimizer owns its moments (taken from
// the run's arena) and makes one explicit op call a parameter.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/core/arena.h"
#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"
#include "proto/spec/training_options.h"

namespace trainyard::optim {

// What is updated. `master`, if there, is f32 and leads: the weight is its value rounded to nearest.
struct OptimizerParameter {
  std::string name;
  kernels::TensorView weight;    // f32 or bf16
  kernels::TensorView master;    // optional
  kernels::TensorView gradient;  // f32
  bool decays = false;           // weight decay applies: matrices, not norms and biases
};

struct NamedTensor {
  std::string name;  // "adamw.m/layers.0.qkv.weight"
  kernels::TensorView tensor;
};

struct UpdateArgs {
  int64_t update = 1;  // 1-based number of this update
  double learning_rate = 0;
  kernels::TensorView gradient_factor;  // f32 (1): what the gradients are multiplied with, for clipping
};

class Optimizer {
 public:
  virtual ~Optimizer() = default;
  virtual void Update(const UpdateArgs& args, kernels::Stream& stream) = 0;
  // Everything that must be in a checkpoint; zero before the first update.
  virtual const std::vector<NamedTensor>& state() const = 0;
};

// Moments are f32, booked under "moments".
std::unique_ptr<Optimizer> MakeOptimizer(const spec::OptimizerOptions& options,
                                         std::vector<OptimizerParameter> parameters, kernels::Arena& arena);

double PeakLearningRate(const spec::OptimizerOptions& options);

}  // namespace trainyard::optim
