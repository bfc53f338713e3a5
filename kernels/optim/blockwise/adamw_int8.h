// AdamW with both moments in 8 bits (moment8.h; after Dettmers et al., arXiv:2110.02861): the formulas of
// kernels/optim/adamw.h, with m and v read from codes and stored as codes after the step has used them in f32.
//
// Blocks are computed whole, so the bits are the same for any number of threads. All-zero codes of first moments stand
// for -(128/127)^4 scale and not for 0: with scales 0, as before step 1, everything is 0.
#pragma once

#include <cstdint>

#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace trainyard::kernels {

struct AdamWInt8Args {
  TensorView param;             // f32 or bf16 (n); read (unless there is a master) and overwritten
  TensorView master = {};       // optional, f32, read and overwritten; param receives it rounded to nearest
  TensorView grad;              // f32 (n)
  TensorView m, v;              // u8 (n), updated
  TensorView m_scale, v_scale;  // f32 (Moment8Blocks(n)), updated
  float lr = 0.0f;
  float beta1 = 0.9f;
  float beta2 = 0.95f;
  float eps = 1e-8f;
  float weight_decay = 0.0f;
  int64_t step = 1;                 // 1-based
  TensorView gradient_factor = {};  // optional, f32 (1)
};
void AdamWInt8(const AdamWInt8Args& args, Stream& stream);

}  // namespace trainyard::kernels
