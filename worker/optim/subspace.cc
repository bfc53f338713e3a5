#include "worker/optim/subspace.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/pattern.h"
#include "kernels/gemm/gemm.h"
#include "kernels/pointwise/elementwise.h"
#include "kernels/transform/index_sets.h"
#include "kernels/transform/take_lines.h"

namespace trainyard::optim {
namespace {

using kernels::DType;
using kernels::Stream;
using kernels::TensorView;

constexpr int64_t kFftThreads = 16;  // that find memory of their own; more threads do not help

// The first elements of a scratch tensor, as a matrix.
TensorView Part(const TensorView& scratch, int64_t rows, int64_t cols) {
  return scratch.Slice(0, rows * cols).Reshape({rows, cols});
}

// The entry of layer_ranks that a name takes its rank from; their number if none.
size_t LayerRankOf(const std::string& name, const spec::SubspaceOptions& options) {
  size_t entry = 0;
  while (entry < options.layer_ranks.size() && !MatchesPattern(options.layer_ranks[entry].pattern, name)) ++entry;
  return entry;
}

}  // namespace

void SubspaceScratch::Fit(int64_t rows, int64_t cols, int64_t rank, const FixedBasis& basis) {
  const int64_t n = std::min(rows, cols);
  const int64_t r = std::min(rank, n);
  matrix_ = std::max(matrix_, rows * cols);
  coordinates_ = std::max(coordinates_, std::max(rows, cols) * r);
  vectors_ = std::max(vectors_, n * r);
  n_ = std::max(n_, n);
  rank_ = std::max(rank_, r);
  if (basis.plan != nullptr) fft_bytes_ = std::max(fft_bytes_, kFftThreads * basis.plan->thread_bytes());
}

void SubspaceScratch::Allocate(kernels::Arena& arena) {
  similarity = arena.Allocate("workspace", DType::kF32, {matrix_});
  coordinates = arena.Allocate("workspace", DType::kF32, {coordinates_});
  vectors = arena.Allocate("workspace", DType::kF32, {vectors_});
  scores = arena.Allocate("workspace", DType::kF32, {n_});
  sources = arena.Allocate("workspace", DType::kI32, {rank_});
  fft = arena.Allocate("workspace", DType::kU8, {fft_bytes_});
}

Subspace::Subspace(int64_t rows, int64_t cols, int64_t rank, const FixedBasis* basis, SubspaceScratch* scratch)
    : rows_(rows), cols_(cols), rank_(std::min({rank, rows, cols})), basis_(basis), scratch_(scratch) {
  TY_CHECK_EQ(basis->n(), std::min(rows, cols));
}

TensorView Subspace::Similarity(const TensorView& x, Stream& stream) const {
  const TensorView s = Part(scratch_->similarity, rows_, cols_);
  if (basis_->plan != nullptr) {
    DctFft({.x = x, .plan = basis_->plan.get(), .y = s, .axis = axis(), .workspace = scratch_->fft}, stream);
  } else {
    DctMatrix({.x = x, .basis = basis_->vectors, .y = s, .axis = axis()}, stream);
  }
  return s;
}

TensorView Subspace::Select(const TensorView& x, kernels::NormOrder norm, const TensorView& indices,
                            Stream& stream) const {
  const TensorView s = Similarity(x, stream);
  const TensorView scores = scratch_->scores.Slice(0, basis_->n());
  AxisNorms({.x = s, .norms = scores, .axis = axis(), .order = norm}, stream);
  TopIndices({.scores = scores, .indices = indices}, stream);
  const TensorView coordinates = Part(scratch_->coordinates, state_rows(), state_cols());
  TakeLines({.x = s, .indices = indices, .y = coordinates, .axis = axis()}, stream);
  return coordinates;
}

TensorView Subspace::Vectors() const {
  return Part(scratch_->vectors, basis_->n(), rank_);
}

void Subspace::UseVectors(const TensorView& indices, Stream& stream) const {
  TakeLines({.x = basis_->vectors, .indices = indices, .y = Vectors(), .axis = 1}, stream);
}

TensorView Subspace::CoordinatesAlong(const TensorView& x, Stream& stream) const {
  const TensorView coordinates = Part(scratch_->coordinates, state_rows(), state_cols());
  if (axis() == 1) {
    Gemm({.a = x, .b = Vectors(), .c = coordinates}, stream);
  } else {
    Gemm({.a = Vectors(), .b = x, .c = coordinates, .transpose_a = true}, stream);
  }
  return coordinates;
}

kernels::LowRankFactors Subspace::Matrix(const TensorView& coordinates) const {
  if (axis() == 1) return {.x = coordinates, .y = Vectors(), .transpose_y = true};
  return {.x = Vectors(), .y = coordinates};
}

void Subspace::Rotate(const TensorView& from, const TensorView& to, const TensorView& moment, Stream& stream) const {
  const TensorView sources = scratch_->sources.Slice(0, rank_);
  MatchIndices({.from = from, .to = to, .sources = sources}, stream);
  const TensorView old = Part(scratch_->similarity, state_rows(), state_cols());
  Convert({.x = moment, .y = old}, stream);
  TakeLines({.x = old, .indices = sources, .y = moment, .axis = axis()}, stream);
}

bool HasSubspace(const TensorView& weight, const spec::SubspaceOptions& options) {
  return weight.rank() == 2 && std::max(weight.dim(0), weight.dim(1)) < options.full_rank_min_dim;
}

int64_t RankOf(const std::string& name, const spec::SubspaceOptions& options) {
  const size_t entry = LayerRankOf(name, options);
  return entry < options.layer_ranks.size() ? options.layer_ranks[entry].rank : options.rank;
}

absl::Status CheckLayerRanks(const spec::SubspaceOptions& options, const std::string& field,
                             const std::vector<OptimizerParameter>& parameters) {
  std::vector<bool> is_used(options.layer_ranks.size() + 1);
  for (const OptimizerParameter& parameter : parameters) {
    if (HasSubspace(parameter.weight, options)) is_used[LayerRankOf(parameter.name, options)] = true;
  }
  for (size_t i = 0; i < options.layer_ranks.size(); ++i) {
    if (is_used[i]) continue;
    return absl::InvalidArgumentError(absl::StrCat(field, ".layer_ranks[", i, "].pattern: \"",
                                                   options.layer_ranks[i].pattern, "\" gives no matrix its rank"));
  }
  return absl::OkStatus();
}

}  // namespace trainyard::optim
