// The first blocks of a network and the final norm, with directional derivatives along random parameter directions
// beside the values (influence-distillation.md 2.5): for each tangent, every trainable number of the truncated network
// moves along its own standard normal direction (kernels/tangent/random_direction.h), in which the parameter's number
// is its place in ListParameters and the tangent's number the direction's.
//
// Sequences are computed one by one with the shared primal; several at a time only share the directions, which are made
// panel by panel and never kept. So a sequence's numbers do not depend on which others came with it or on threads.
// Linear layers are plain ones, whatever scheme the training has.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "kernels/core/stream.h"
#include "kernels/tangent/tangent_ops.h"
#include "worker/model/config.h"
#include "worker/model/parameters.h"

namespace trainyard::model {

struct TangentOptions {
  int64_t blocks = 1;    // 0 .. layers
  int64_t tangents = 0;  // 0: values only
  uint64_t seed = 43;
  int64_t panel_rows = 256;  // of a weight's direction that exist at a time; changes no bit
  int64_t max_length = 1;    // of a sequence, at most config.max_positions
};

// T: float, or double for checks.
template <typename T>
class TangentNetwork {
 public:
  // weights[i]: the numbers of parameter i of ListParameters(config); borrowed. Those of later blocks may be null.
  TangentNetwork(const ModelConfig& config, const TangentOptions& options, std::vector<const T*> weights);

  // For each sequence its values and tangents after the final norm: (1 + tangents, length, hidden_size). Token ids must
  // be below the vocabulary's size, lengths at most max_length; an empty sequence gives nothing.
  std::vector<std::vector<T>> Run(const std::vector<std::vector<int32_t>>& sequences, kernels::Stream& stream) const;

 private:
  struct Activations;
  const T* Weight(const std::string& name) const;  // null if there is none
  uint32_t Number(const std::string& name) const;
  // The tangents of a vector parameter: (tangents, size).
  std::vector<T> VectorDots(const std::string& name, int64_t size) const;
  void RunBlock(int64_t layer, std::vector<Activations>& all, kernels::Stream& stream) const;
  // to = from w^T (+ bias) with w's tangent; `prefix` as "layers.0.qkv".
  void Linear(const std::string& prefix, int64_t out, kernels::Dual<T> Activations::*from,
              kernels::Dual<T> Activations::*to, std::vector<Activations>& all, kernels::Stream& stream) const;
  void Norm(const std::string& name, kernels::Dual<T> Activations::*from, kernels::Dual<T> Activations::*to,
            std::vector<Activations>& all, kernels::Stream& stream) const;

  const ModelConfig config_;
  const TangentOptions options_;
  const std::vector<const T*> weights_;
  std::map<std::string, uint32_t> numbers_;
  std::vector<float> rope_table_;
};

extern template class TangentNetwork<float>;
extern template class TangentNetwork<double>;

}  // namespace trainyard::model
