// The tensors of a network: their names, shapes, initial values and Hugging Face counterparts.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/core/arena.h"
#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"
#include "worker/model/config.h"

namespace trainyard::model {

// Rows [row_begin, row_begin + rows) of a parameter are one tensor of a Hugging Face file: q, k and v are one matrix
// here, as are gate and up.
struct HuggingFacePart {
  std::string name;
  int64_t row_begin = 0;
  int64_t rows = 0;
};

struct Parameter {
  enum class Init { kNormal, kOnes, kZeros };

  std::string name;            // "layers.3.qkv.weight"
  std::vector<int64_t> shape;  // (out, in) or (channels)
  int layer = 0;               // 0: embedding; 1 .. L: blocks; L + 1: final norm and head
  Init init = Init::kNormal;
  float init_std = 0.0f;
  std::vector<HuggingFacePart> parts;  // none: what a linear scheme learns
  bool belongs_to_scheme = false;

  int64_t size() const { return shape.size() == 2 ? shape[0] * shape[1] : shape[0]; }
  bool is_matrix() const { return shape.size() == 2; }  // what lossy codecs apply to
  bool decays() const { return is_matrix() || belongs_to_scheme; }
};

// In forward order, which is the order of memory, of gradient buckets and of Philox tensor numbers. A tied head is not
// listed: it is the embedding. Nor is what a block does not have: without attention or without an MLP it has neither
// the matrices nor the norm before them.
std::vector<Parameter> ListParameters(const ModelConfig& config);

// Elements of all parameters; of those of one block of the given shape. Arithmetic only: cheap enough for a search that
// asks for every candidate.
int64_t ParameterCount(const ModelConfig& config);
int64_t BlockParameterCount(const ModelConfig& config, const BlockShape& block);

// The tensors of one kind (weights or gradients) by their place in the network. Absent ones have no data.
struct BlockTensors {
  kernels::TensorView attention_norm, qkv, qkv_bias, output, output_bias, mlp_norm, gate_up, down;
  kernels::TensorView qkv_scheme, output_scheme, gate_up_scheme, down_scheme;  // ModelConfig::site_parameters
};
struct NetworkTensors {
  std::vector<kernels::TensorView> all;  // as ListParameters
  kernels::TensorView embedding;
  std::vector<BlockTensors> blocks;
  kernels::TensorView final_norm;
  kernels::TensorView head;  // the embedding if tied
};
NetworkTensors BindTensors(const ModelConfig& config, std::vector<kernels::TensorView> all);

// One block of memory a parameter.
NetworkTensors AllocateWeights(const ModelConfig& config, kernels::DType dtype, const std::string& purpose,
                               kernels::Arena& arena);

// f32, all in one run of memory without gaps, so that a bucket of layers is one range. `flat` is the whole.
struct Gradients {
  kernels::TensorView flat;
  NetworkTensors tensors;
};
Gradients AllocateGradients(const ModelConfig& config, kernels::Arena& arena);

// Fills `tensor` (f32 or bf16) with the initial values of parameter number `index`: matrices N(0, 0.02^2), those that
// write to the residual stream N(0, 0.02^2 / (2 L)) (Radford et al., 2019); norms 1; biases 0. A value is a function of
// (seed, index, element) alone, not of ranks or threads; bf16 is the f32 value rounded to nearest.
void InitializeParameter(const Parameter& parameter, uint32_t index, uint64_t seed, const kernels::TensorView& tensor,
                         kernels::Stream& stream);

}  // namespace trainyard::model
