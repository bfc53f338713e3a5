// ECO, the error-compensating optimizer (Nikdan et al., arXiv:2601.22101, Algorithms 2 and 3): weights are codes and
// scales, with no master beside them; what a step loses to rounding goes into the momentum. One matrix a call.
//
//   g' = g * grad_scale * gradient_factor       w = the coded weight, as the network reads it
//   AdamW:  m~ = b1 m + (1 - b1) g'    v = b2 v + (1 - b2) g'^2    c_i = 1 - b_i^step    d = sqrt(v / c2) + eps
//           w~ = w - lr (m~ / (c1 d) + weight_decay w)
//   SGDM:   m~ = b1 m + (1 - b1) g'    w~ = w - lr (m~ + weight_decay w)
//   both:   codes = q(w~), with scales from w~ so that nothing clips;   e = w~ - (the weight they decode to)
//   AdamW:  m = m~ + c1/lr (1 - 1/b1) d e
//   SGDM:   m = m~ + 1/lr (1 - 1/b1) e
//   exact:  m = m~ + e_before / lr - e / (lr b1)      SGDM that keeps e: the trajectory of a master weight
//
// With decay_correction the injected terms are multiplied by (1 - lr weight_decay). Where lr < min_learning_rate, or
// without `inject` (the naive baseline), m = m~ and the exact form's e is stored as 0: nothing is divided by lr. The
// injection is not clipped, and reaches neither v nor the gradient.
//
// weights: any CodedMatrix; grad, m, v f32 or bf16, as many elements. Arithmetic is f32, in one pass: a span's largest
// |w~| is known before its first code because the pass over a span longer than a block is made twice while the span is
// in the cache (over a whole tensor, if that has one scale only). m and v in bf16 are stored with stochastic rounding:
// the injection may be far larger than the gradient's part. The same bits for any number of threads; a shard of whole
// spans gives the bits of the whole.
#pragma once

#include <cstdint>

#include "kernels/core/philox.h"
#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"
#include "kernels/optim/eco_formula.h"
#include "kernels/quant/coded_matrix.h"

namespace trainyard::kernels {

// What a step tells, as sums over the elements of a piece.
enum EcoStatistic : int {
  kEcoChanged,           // codes that are not what they were
  kEcoClipped,           // |w~| beyond the largest code: 0, or the scales are wrong
  kEcoInjectionSquares,  // of m - m~
  kEcoMomentumSquares,   // of m~
  kEcoStatistics
};
int64_t EcoPieces(const CodedMatrix& weights);          // fixed by the shape, so that sums have the same bits always
int64_t EcoWorkspaceBytes(const CodedMatrix& weights);  // 0 unless one scale serves more than a block

struct EcoArgs {
  EcoForm form = EcoForm::kAdamW;
  CodedMatrix weights;               // read and overwritten
  DType weight_value = DType::kF32;  // kBF16: the network reads the decoded weights rounded to bf16
  TensorView grad;
  TensorView m;           // updated; zero before step 1
  TensorView v = {};      // AdamW: updated; zero before step 1
  TensorView error = {};  // exact: f32, updated; zero before step 1
  float lr = 0.0f;
  float beta1 = 0.9f;  // (0, 1)
  float beta2 = 0.98f;
  float eps = 1e-9f;
  float weight_decay = 0.0f;
  int64_t step = 1;  // 1-based
  float grad_scale = 1.0f;
  TensorView gradient_factor = {};  // optional, f32 (1)
  bool inject = true;
  bool decay_correction = false;
  float min_learning_rate = 1e-9f;            // above 0
  Rounding rounding = Rounding::kStochastic;  // of the codes
  PhiloxKey random = {};       // seed, step, tensor; the op sets the purpose: weights and each moment have their own
  int64_t first_element = 0;   // where the views begin in the tensor
  TensorView statistics = {};  // optional, f32 (EcoPieces, kEcoStatistics), overwritten
  TensorView workspace = {};   // EcoWorkspaceBytes, aligned to 4; absent if that is 0
};

void Eco(const EcoArgs& args, Stream& stream);

}  // namespace trainyard::kernels
