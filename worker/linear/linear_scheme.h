// How the weight matrices of a network's blocks compute: the seam where quantized schemes plug in. A scheme decides the
// numerics of the three products of a linear layer; what it is given and gives back has the storage dtype of the
// network, whatever happens between.
//
// The embedding, the LM head and attention itself do not pass through a scheme: they compute as stored.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/strings/string_view.h"
#include "kernels/core/dtype.h"
#include "kernels/core/stream.h"
#include "kernels/gemm/linear.h"

namespace trainyard::linear {

// One linear layer: y (rows, out) = x (rows, in) w^T, w (out, in), stored as `storage` (f32 or bf16).
struct LinearSite {
  int64_t rows = 0;
  int64_t in = 0;
  int64_t out = 0;
  kernels::DType storage = kernels::DType::kF32;
};

// Immutable; the same bits for any number of threads.
class LinearScheme {
 public:
  virtual ~LinearScheme() = default;
  virtual absl::string_view name() const = 0;

  // Scratch that is enough for each of the three calls.
  virtual int64_t WorkspaceBytes(const LinearSite& site) const = 0;

  // As the ops of the same name in kernels/gemm/linear.h. dw and db are f32.
  virtual void Forward(const kernels::LinearForwardArgs& args, kernels::Stream& stream) const = 0;
  virtual void BackwardInput(const kernels::LinearBackwardInputArgs& args, kernels::Stream& stream) const = 0;
  virtual void BackwardWeight(const kernels::LinearBackwardWeightArgs& args, kernels::Stream& stream) const = 0;
};

// Operands as they are stored; sums in f32.
std::unique_ptr<LinearScheme> MakeFp32Scheme();

// Operands of all three products rounded to bf16 (nearest even), sums in f32: what a tensor core does. With bf16
// storage operands are bf16 already, so this equals Fp32Scheme.
std::unique_ptr<LinearScheme> MakeBf16Scheme();

}  // namespace trainyard::linear
