// The first blocks of a network and the final norm, with directional derivatives along random parameter directions
// beside the values (influence-distillation.md 2.5): for each tangent, every trainable number of the truncated network
// moves along its own standard normal direction (kernels/tangent/random_direction.h), in which the parameter's number
// is its place in ListParameters and the tangent's number the direction's.
//
// Sequences are computed one by one with the shared primal; several at a time only share the directions, which are made
// panel by panel and never kept. So a sequence's numbers do not depend on which others came with it or on threads.
// Linear layers are plain ones, whatever scheme the training has.
//
// On a CUDA device (f32) everything but the table of RoPE is made there, sequence by sequence, by calls that enqueue;
// with another order of sums than on the CPU, which each sequence's own length gives.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "kernels/core/arena.h"
#include "kernels/core/stream.h"
#include "kernels/tangent/tangent_ops.h"
#include "worker/model/config.h"
#include "worker/model/parameters.h"

namespace trainyard::model {

struct TangentOptions {
  int64_t blocks = 1;    // 0 .. layers
  int64_t tangents = 0;  // 0: values only
  uint64_t seed = 43;
  int64_t panel_rows = 256;                        // of a weight's direction that exist at a time; changes no bit
  int64_t max_length = 1;                          // of a sequence, at most config.max_positions
  kernels::Device device = kernels::Device::kCpu;  // of the weights and of the streams
};

// T: float, or double for checks.
template <typename T>
class TangentNetwork {
 public:
  // weights[i]: the numbers of parameter i of ListParameters(config); borrowed. Those of later blocks may be null.
  TangentNetwork(const ModelConfig& config, const TangentOptions& options, std::vector<const T*> weights);

  // Calls take(i, states) for each sequence i that is not empty, in order, with its values and tangents after the final
  // norm: (1 + tangents, length, hidden_size), in memory of the device that lasts until the next call here, and which
  // the stream may still be writing: `take` enqueues. Token ids must be below the vocabulary's size, lengths at most
  // max_length. Memory grows with the tokens of a call and is kept; ResourceExhausted if it cannot be had. Waits for
  // what was enqueued before, not for its own work.
  absl::Status Run(const std::vector<std::vector<int32_t>>& sequences, kernels::Stream& stream,
                   absl::FunctionRef<void(size_t sequence, const kernels::Dual<T>& states)> take);

  // The states themselves, on the host; none for an empty sequence. For checks: aborts without memory.
  std::vector<std::vector<T>> Run(const std::vector<std::vector<int32_t>>& sequences, kernels::Stream& stream);

 private:
  struct Activations;
  // What a call holds at a time.
  struct Extents {
    int64_t sequences = 0;
    int64_t tokens = 0;  // of all sequences
    int64_t longest = 0;
  };
  // The widest of the blocks.
  struct Widths {
    int64_t wide = 0;    // qkv, or gate and up
    int64_t narrow = 0;  // what attention and the MLP give to their last layer
    int64_t in = 0;      // of a linear layer
    int64_t q_heads = 0;
  };
  struct Memory {
    T* numbers = nullptr;  // of all activations
    T* dots = nullptr;     // of one vector parameter: (tangents, size)
    T* panel = nullptr;    // (panel_rows, in)
    T* product = nullptr;  // (longest, panel_rows), on a CUDA device
    float* lse = nullptr;  // (q_heads, longest), on a CUDA device
    float* rope_table = nullptr;
    int32_t* tokens = nullptr;  // shared with the host
  };

  const T* Weight(const std::string& name) const;  // null if there is none
  uint32_t Number(const std::string& name) const;
  int64_t ActivationNumbers(const Extents& extents) const;
  Memory Lay(const Extents& extents, kernels::Arena& arena) const;
  absl::Status Reserve(const Extents& extents);
  // Calls body for all sequences: on the CPU by the stream's threads, on a device one after the other.
  template <typename Body>
  void ForAll(std::vector<Activations>& all, kernels::Stream& stream, const Body& body) const;
  // The tangents of a vector parameter, (tangents, size), in memory_.dots.
  void FillVectorDots(const std::string& name, int64_t size, kernels::Stream& stream) const;
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
  Widths widths_;
  kernels::Arena arena_;
  Extents reserved_;  // what arena_ has room for
  Memory memory_;
};

extern template class TangentNetwork<float>;
extern template class TangentNetwork<double>;

}  // namespace trainyard::model
