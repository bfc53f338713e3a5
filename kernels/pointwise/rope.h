// Rotary position embedding (Su et al., arXiv:2104.09864) in the pairing of Hugging Face's Llama: dimension i of a head
// turns with dimension i + HS/2.
//
//   angle(t, i) = t * frequency(i), frequency(i) = theta^(-2 i / HS)
//   x'[i]        = x[i] cos - x[i + HS/2] sin
//   x'[i + HS/2] = x[i + HS/2] cos + x[i] sin
//
// qkv: (batch * seq, (q_heads + 2 kv_heads) * head_dim) or (batch, seq, ...), f32 or bf16, packed per token as q heads,
// k heads, v heads; q and k heads are turned in place, v heads are untouched. table: (positions, head_dim / 2, 2) f32
// of (cos, sin) pairs.
#pragma once

#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace trainyard::kernels {

// Llama 3's stretched frequencies ("rope_type": "llama3" in config.json): wavelengths beyond
// original_max_positions / low_freq_factor are slowed by `factor`, those under original_max_positions /
// high_freq_factor are kept, and those between are interpolated. factor 1: no scaling.
struct RopeScaling {
  double factor = 1;
  double low_freq_factor = 1;
  double high_freq_factor = 4;
  int64_t original_max_positions = 8192;
};

struct RopeTableArgs {
  TensorView table;  // overwritten; (positions, head_dim / 2, 2) f32
  double theta = 10000;
  int64_t head_dim = 0;  // even
  RopeScaling scaling = {};
};
// Angles are computed in double and rounded once. For set-up: scalar code, about 50 ns an entry.
void RopeTable(const RopeTableArgs& args, Stream& stream);

struct RopeArgs {
  TensorView qkv;  // in place
  TensorView table;
  int64_t batch = 1;
  int64_t q_heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  TensorView amax = {};         // optional, of the backward only
  int64_t position_offset = 0;  // position of the first token of every sequence; offset + seq <= positions of the table
};
void RopeForward(const RopeArgs& args, Stream& stream);
// The transpose, which is the inverse rotation: turns the gradient of the output into that of the input.
// amax: optional, f32 (1), overwritten with the largest magnitude of all of the result, v heads too: the bits of AbsMax
// (kernels/quant/abs_max.h) without its pass.
void RopeBackward(const RopeArgs& args, Stream& stream);

}  // namespace trainyard::kernels
