// The subspace of one matrix: r of the n vectors of a fixed basis, along its shorter side, chosen by how much of the
// matrix lies along each (dct-lowrank.md 2.2, 2.3). What DCT-AdamW and Trion share.
//
// A (rows, cols), P (n, n). rows >= cols: n = cols, S = A P, coordinates a = S[:, I] are (rows, r) and stand for a
// P_r^T. Else: n = rows, S = P^T A, a = S[I, :] is (r, cols) and stands for P_r a.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "kernels/core/arena.h"
#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"
#include "kernels/optim/low_rank_factors.h"
#include "kernels/transform/axis_norms.h"
#include "worker/optim/fixed_basis.h"
#include "worker/optim/optimizer.h"

namespace trainyard::optim {

// Temporaries of all subspaces of an optimizer, which go through their steps one after another; booked under
// "workspace".
class SubspaceScratch {
 public:
  // Call for every subspace, then Allocate once.
  void Fit(int64_t rows, int64_t cols, int64_t rank, const FixedBasis& basis);
  void Allocate(kernels::Arena& arena);

 private:
  friend class Subspace;
  int64_t matrix_ = 0, coordinates_ = 0, vectors_ = 0, n_ = 0, rank_ = 0, fft_bytes_ = 0;
  kernels::TensorView similarity, coordinates, vectors, scores, sources, fft;
};

class Subspace {
 public:
  // `rank` is cut to the shorter side. `basis` has its length; both pointers outlive the subspace.
  Subspace(int64_t rows, int64_t cols, int64_t rank, const FixedBasis* basis, SubspaceScratch* scratch);

  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  int64_t rank() const { return rank_; }
  // 1: the basis is along a row, 0: along a column.
  int axis() const { return rows_ >= cols_ ? 1 : 0; }
  // Of the coordinates, and so of moments.
  int64_t state_rows() const { return axis() == 1 ? rows_ : rank_; }
  int64_t state_cols() const { return axis() == 1 ? rank_ : cols_; }

  // Overwrites indices (i32, r) with the choice for x, f32 (rows, cols), and returns x's coordinates there. They lie in
  // the scratch, until the next call of this or of CoordinatesAlong.
  kernels::TensorView Select(const kernels::TensorView& x, kernels::NormOrder norm, const kernels::TensorView& indices,
                             kernels::Stream& stream) const;

  // Gathers the basis vectors of `indices` for the calls below.
  void UseVectors(const kernels::TensorView& indices, kernels::Stream& stream) const;
  // Coordinates of x along the vectors in use.
  kernels::TensorView CoordinatesAlong(const kernels::TensorView& x, kernels::Stream& stream) const;
  // The matrix that coordinates along the vectors in use stand for.
  kernels::LowRankFactors Matrix(const kernels::TensorView& coordinates) const;

  // Carries a moment (of the shape of coordinates) from the old choice to the new: what both have moves to its new
  // place, what is new starts at 0. This is m P[:, from]^T P[:, to], whose middle is a 0/1 matrix.
  void Rotate(const kernels::TensorView& from, const kernels::TensorView& to, const kernels::TensorView& moment,
              kernels::Stream& stream) const;

 private:
  kernels::TensorView Similarity(const kernels::TensorView& x, kernels::Stream& stream) const;
  kernels::TensorView Vectors() const;

  int64_t rows_, cols_, rank_;
  const FixedBasis* basis_;
  SubspaceScratch* scratch_;
};

// Whether a parameter of this shape has a subspace: two dimensions, both below `full_rank_min_dim`.
bool HasSubspace(const kernels::TensorView& weight, const spec::SubspaceOptions& options);

// The rank that the options give a parameter of this name, not yet cut to its sides.
int64_t RankOf(const std::string& name, const spec::SubspaceOptions& options);

// InvalidArgument, under the path `field` of the options, for a pattern of layer_ranks that no parameter with a
// subspace takes its rank from.
absl::Status CheckLayerRanks(const spec::SubspaceOptions& options, const std::string& field,
                             const std::vector<OptimizerParameter>& parameters);

inline kernels::NormOrder OrderOf(spec::SubspaceOptions::Norm norm) {
  return norm == spec::SubspaceOptions::Norm::kL1 ? kernels::NormOrder::kL1 : kernels::NormOrder::kL2;
}

}  // namespace trainyard::optim
