// What the Elsa optimizer updates: the run's parameters cut into the tensors that are pruned by themselves, each with
// its states.
#pragma once

#include <string>
#include <vector>

#include "kernels/prune/stored_tensor.h"
#include "worker/optim/optimizer.h"

namespace trainyard::optim {

struct ElsaTensor {
  std::string name;
  int64_t rows = 0;  // 0: not a matrix
  int64_t cols = 0;
  kernels::TensorView weight, master, gradient;
  bool decays = false;
  bool is_pruned = false;
  // Adam.
  kernels::TensorView m, v, m_scale, v_scale;
  // Of pruned tensors only.
  kernels::StoredTensor z, u;  // merged: z is s, and there is no u
  kernels::TensorView mask, first_mask;

  const kernels::TensorView& leading() const { return master ? master : weight; }
  int64_t size() const { return weight.size(); }
};

// Without states. In the order of the parameters and their parts; parameters of which nothing is pruned stay whole.
std::vector<ElsaTensor> ListElsaTensors(const spec::ElsaOptions& options,
                                        const std::vector<OptimizerParameter>& parameters);

// Takes the states from the arena and names them.
void AllocateStates(const spec::ElsaOptions& options, kernels::Arena& arena, std::vector<ElsaTensor>* tensors,
                    std::vector<NamedTensor>* state);

}  // namespace trainyard::optim
