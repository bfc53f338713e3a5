// Evaluates a network whose weights were trained by QuEST and are kept as codes (docs/formats.md, packed model).
//
//   kCodes    y = IntGridLinear(codes(x H), codes of w): exact sums of integers (kernels/gemm/int_gemm.h)
//   kValues   y = x_hat w_hat^T with w_hat already dequantized (and rotated) in the network's weights
//   kDense    y = x w^T: a layer that was left out of quantization
//
// The same function as QuestScheme's forward, up to the rounding of its f32 sums. Forward only.
#pragma once

#include <memory>
#include <vector>

#include "kernels/gemm/int_gemm.h"
#include "proto/spec/linear_options.h"
#include "worker/linear/linear_scheme.h"

namespace trainyard::linear {

struct PackedQuestWeight {
  enum class Kind { kCodes, kValues, kDense };
  Kind kind = Kind::kDense;
  // Of kCodes; borrowed.
  kernels::IntCodes codes = {};          // (out, in)
  kernels::TensorView steps, code_sums;  // f32, i32 (out)
  // Of both kinds, with learned steps and quantized activations: f32 (1); borrowed.
  kernels::TensorView activation_step = {};
};

// `weights`: by LinearSite::index. kCodes needs both grids INT.
std::unique_ptr<LinearScheme> MakePackedQuestScheme(const spec::LinearQuest& options,
                                                    std::vector<PackedQuestWeight> weights);

}  // namespace trainyard::linear
