// How the weight matrices of a network's blocks compute: the seam where quantized schemes plug in. A scheme decides the
// numerics of the three products of a linear layer; what it is given and gives back has the storage dtype of the
// network, whatever happens between.
//
// The embedding, the LM head and attention itself do not pass through a scheme: they compute as stored.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/strings/string_view.h"
#include "kernels/core/dtype.h"
#include "kernels/core/philox.h"
#include "kernels/core/stream.h"
#include "kernels/gemm/linear.h"

namespace trainyard::linear {

// One linear layer: y (rows, out) = x (rows, in) w^T, w (out, in), stored as `storage` (f32 or bf16).
struct LinearSite {
  std::string name;    // "layers.3.qkv"
  uint32_t index = 0;  // number of the site in its network: a name for random streams
  int64_t rows = 0;    // at most; a backward has exactly so many
  int64_t in = 0;
  int64_t out = 0;
  kernels::DType storage = kernels::DType::kF32;
};

// What random numbers of a call depend on beside the site.
struct LinearRandom {
  uint64_t seed = 0;
  int64_t step = 0;
  int64_t micro_batch = 0;  // number in the step over all ranks: rank * accumulation + micro-step
};

struct LinearCall {
  const LinearSite& site;
  LinearRandom random = {};
  kernels::TensorView parameters = {};  // what the scheme learns at the site: storage dtype (ParameterCount), or absent
  bool calibrates = false;              // a forward that first sets `parameters` from its operands
  // f32 (1): the largest magnitude of the call's x (dy), the bits of AbsMax, left by the op that made the tensor, for a
  // scheme that asks for it (UsesAmax). Absent: not known. Others need not look.
  kernels::TensorView x_amax = {};
  kernels::TensorView dy_amax = {};

  // The stream of one of a site's kLinearRoles uses of random numbers. Micro-batches 65,536 apart share it.
  kernels::PhiloxKey Key(uint16_t purpose, uint32_t role) const {
    return {.seed = random.seed,
            .step = static_cast<uint32_t>(random.step),
            .micro_step = static_cast<uint16_t>(random.micro_batch),
            .purpose = purpose,
            .tensor = site.index * 16 + role};
  }
};
inline constexpr uint32_t kLinearRoles = 16;

// dy, x, w as in the forward; all of the gradient at once, so that a scheme can share work between its products.
struct LinearBackwardArgs {
  kernels::TensorView dy, x, w;
  kernels::TensorView dx;                // dtype of x, overwritten
  kernels::TensorView dw;                // f32
  kernels::TensorView db = {};           // f32, optional
  kernels::TensorView dparameters = {};  // f32, of LinearCall::parameters
  bool accumulate = false;               // add to dw, db and dparameters instead of overwriting them
  kernels::TensorView workspace = {};
};

// Immutable and without state: a backward makes what it needs of the forward (codes, masks) from x and w again, which
// costs a pass over the operands and no memory. The same bits for any number of threads. On a device a call enqueues
// and does not wait: nothing that lies there is read on the host.
class LinearScheme {
 public:
  virtual ~LinearScheme() = default;
  virtual absl::string_view name() const = 0;

  // Numbers that the scheme learns at each layer, beside the weights.
  virtual int64_t ParameterCount() const { return 0; }

  // Whether the scheme makes scales of the largest magnitudes of x and dy at the site, so that whoever makes these
  // tensors should give LinearCall their amax.
  virtual bool UsesAmax(const LinearSite& /*site*/) const { return false; }

  // Scratch that is enough for each of the two calls.
  virtual int64_t WorkspaceBytes(const LinearSite& site) const = 0;

  // y is overwritten. Any number of rows up to site.rows.
  virtual void Forward(const LinearCall& call, const kernels::LinearForwardArgs& args,
                       kernels::Stream& stream) const = 0;
  // Outputs alias no input.
  virtual void Backward(const LinearCall& call, const LinearBackwardArgs& args, kernels::Stream& stream) const = 0;
};

// Operands as they are stored; sums in f32.
std::unique_ptr<LinearScheme> MakeFp32Scheme();

// Operands of all three products rounded to bf16 (nearest even), sums in f32: what a tensor core does. With bf16
// storage operands are bf16 already, so this equals Fp32Scheme.
std::unique_ptr<LinearScheme> MakeBf16Scheme();

}  // namespace trainyard::linear
