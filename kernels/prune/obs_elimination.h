// Optimal brain surgeon on whole columns of a matrix (Hassibi and Stork, 1992; groups of columns as ZipLM, Kurtic et
// al., arXiv:2302.04089, and DarwinLM, arXiv:2502.07780), in double. With P = H^-1, for a group g of `group` columns:
//
//   score_g = trace(W_g P_gg^-1 W_g^T)          the lowest goes; of equal ones, to 1e-12, the lowest index
//   W <- W - W_g P_gg^-1 P_g:                   which zeroes W_g
//   P <- P - P_:g P_gg^-1 P_g:                  the inverse of H without g
//
// Each removal adds 2 * (the error's growth) = score to trace(dW H dW^T).
//
// The same numbers cheaper: with M M^T = P_gg^-1, U = P_:g M, V = W_g M and G = W^T W,
//
//   W <- W - V U^T;   P <- P - U U^T;   G <- G - U Z^T - Z U^T,   Z = G_:g M - U (V^T V) / 2
//
// so scores follow from the diagonal blocks of P and G, which are kept up to date, and the matrices are updated by one
// product for `delay` removed columns: a removal reads `group` rows of P, G and W, not all of them.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/core/stream.h"

namespace trainyard::kernels {

struct ObsShape {
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t group = 1;   // divides cols
  int64_t delay = 64;  // removed columns between two updates of the matrices; at least a group
};

// Not thread-safe; the same bits for any number of the stream's threads.
class ObsElimination {
 public:
  // w: (rows, cols), hessian: (cols, cols), row-major. FailedPrecondition if the hessian is not positive definite.
  static absl::StatusOr<ObsElimination> Create(const ObsShape& shape, const std::vector<double>& w,
                                               std::vector<double> hessian);

  int64_t groups() const { return shape_.cols / shape_.group; }
  int64_t left() const { return left_; }

  struct Removal {
    int64_t group = 0;
    double score = 0;
  };
  // Removes the group of the lowest score; left() must not be 0.
  Removal RemoveNext(Stream& stream);

  bool is_removed(int64_t group) const { return removed_[static_cast<size_t>(group)]; }
  // W as it is now, transposed: (cols, rows). Columns that were removed are zero.
  const std::vector<double>& TransposedWeights(Stream& stream);

 private:
  explicit ObsElimination(const ObsShape& shape);
  void Score(int64_t group);
  int64_t Lowest() const;
  // Rows [first, first + group) of a symmetric matrix, or of W^T, less the pending products.
  std::vector<double> CurrentRows(const std::vector<double>& matrix, int64_t first, int64_t width) const;
  void Flush(Stream& stream);

  ObsShape shape_;
  int64_t left_ = 0;
  std::vector<bool> removed_;
  std::vector<double> scores_;          // +infinity where removed
  std::vector<double> weights_;         // W^T (cols, rows), less what is pending
  std::vector<double> inverse_;         // P (cols, cols), likewise
  std::vector<double> gram_;            // G (cols, cols), likewise
  std::vector<double> inverse_blocks_;  // (groups, group, group), up to date
  std::vector<double> gram_blocks_;     // likewise
  int64_t pending_ = 0;                 // columns
  std::vector<double> u_, z_, v_;       // U^T, Z^T (pending, cols), V^T (pending, rows)
};

}  // namespace trainyard::kernels
