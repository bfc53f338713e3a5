// Pruning one matrix without training, from what it sees of its inputs: the baselines of Elsa.
//
//   magnitude   the lowest |w| of the matrix
//   Wanda       the lowest |w_ij| * sqrt(sum x_j^2) of each output row (Sun et al., arXiv:2306.11695)
//   SparseGPT   block after block of columns, the lowest w_ij^2 / [H^-1]_jj of the block, H the part of X^T X that is
//               still free; what a weight did is moved to the columns behind it (Frantar and Alistarh,
//               arXiv:2301.00774)
//
// Exactly floor(elements * share) zeros in the matrix (of each row, for Wanda), or the N best of every M neighbours in
// a row. SparseGPT's damping is added to the diagonal of X^T X as a share of its mean; columns that no input reaches
// become 0.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace trainyard::prune {

enum class Method { kMagnitude, kWanda, kSparseGpt };

struct OneShotOptions {
  Method method = Method::kSparseGpt;
  double sparsity = 0.5;  // [0, 1), read in parts per million; not with a group
  int group = 0;          // 4 or 8: keep half of every 4 or 8; 0: unstructured
  // SparseGPT.
  int64_t block = 128;    // columns whose mask is chosen together; a multiple of the group
  double damping = 0.01;  // above 0
};

// Sums over the inputs x (rows, in) of one linear layer.
class InputMoments {
 public:
  // With `products` X^T X, as SparseGPT needs, otherwise its diagonal alone.
  InputMoments(int64_t in, bool products);
  // x: f32 (rows, in).
  void Add(const kernels::TensorView& x, kernels::Stream& stream);

  int64_t in() const { return in_; }
  double square_sum(int64_t column) const {
    return sums_[static_cast<size_t>(has_products_ ? column * in_ + column : column)];
  }
  absl::Span<const double> products() const { return sums_; }  // (in, in)

 private:
  const int64_t in_;
  const bool has_products_;
  std::vector<double> sums_;
};

// w: f32 (out, in), overwritten. Fills `kept` (out * in) with 1 where an element is kept and 0 where it was pruned. Of
// `moments` magnitude reads nothing. FailedPrecondition if X^T X is not finite.
absl::Status PruneMatrix(const OneShotOptions& options, const InputMoments& moments, const kernels::TensorView& w,
                         std::vector<uint8_t>* kept, kernels::Stream& stream);

}  // namespace trainyard::prune
