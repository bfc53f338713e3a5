#include "kernels/prune/obs_elimination.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "base/check.h"
#include "base/status_macros.h"
#include "kernels/prune/linalg/cholesky.h"

namespace trainyard::kernels {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Scores nearer than this are equal: symmetric problems have equal scores but for the rounding of the inverse.
constexpr double kTie = 1e-12;

// Products are cut here whatever the number of threads, so that they have the same bits.
constexpr int64_t kRowBlock = 128;

// c -= a^T b, a: (k, m), b: (k, n), dense.
void SubtractTransposed(const double* a, const double* b, int64_t m, int64_t n, int64_t k, double* c, Stream& stream) {
  stream.pool().ParallelFor((m + kRowBlock - 1) / kRowBlock, 1, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const int64_t row = block * kRowBlock;
      SubtractProduct({.transpose_a = true,
                       .m = std::min(kRowBlock, m - row),
                       .n = n,
                       .k = k,
                       .a = a + row,
                       .lda = m,
                       .b = b,
                       .ldb = n,
                       .c = c + row * n,
                       .ldc = n});
    }
  });
}

// out = root^T rows. root: (size, size), rows and out: (size, width).
void ApplyRoot(const std::vector<double>& root, const std::vector<double>& rows, int64_t size, int64_t width,
               double* out) {
  std::fill_n(out, size * width, 0.0);
  for (int64_t i = 0; i < size; ++i) {
    for (int64_t k = 0; k < size; ++k) {
      const double factor = root[static_cast<size_t>(k * size + i)];
      if (factor == 0) continue;
      const double* const row = rows.data() + k * width;
      for (int64_t col = 0; col < width; ++col) out[i * width + col] += factor * row[col];
    }
  }
}

}  // namespace

ObsElimination::ObsElimination(const ObsShape& shape)
    : shape_(shape),
      left_(shape.cols / shape.group),
      removed_(static_cast<size_t>(left_), false),
      scores_(static_cast<size_t>(left_), kInfinity) {
  TY_CHECK_GE(shape.rows, 1);
  TY_CHECK_GE(shape.cols, 1);
  TY_CHECK_GE(shape.group, 1);
  TY_CHECK_EQ(shape.cols % shape.group, 0);
  shape_.delay = std::max(shape.delay, shape.group);
  u_.resize(static_cast<size_t>(shape_.delay * shape.cols));
  z_.resize(u_.size());
  v_.resize(static_cast<size_t>(shape_.delay * shape.rows));
}

absl::StatusOr<ObsElimination> ObsElimination::Create(const ObsShape& shape, const std::vector<double>& w,
                                                      std::vector<double> hessian) {
  const int64_t rows = shape.rows, cols = shape.cols, group = shape.group;
  TY_CHECK_EQ(static_cast<int64_t>(w.size()), rows * cols);
  TY_CHECK_EQ(static_cast<int64_t>(hessian.size()), cols * cols);
  ObsElimination state(shape);
  state.inverse_ = std::move(hessian);
  TY_RETURN_IF_ERROR(InvertPositive(state.inverse_.data(), cols));
  state.weights_.resize(w.size());
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t col = 0; col < cols; ++col) {
      state.weights_[static_cast<size_t>(col * rows + row)] = w[static_cast<size_t>(row * cols + col)];
    }
  }
  // G = W^T W, as 0 - (-W)^T W.
  std::vector<double> negative(w.size());
  std::transform(w.begin(), w.end(), negative.begin(), std::negate<>());
  state.gram_.assign(static_cast<size_t>(cols * cols), 0.0);
  SubtractProduct({.transpose_a = true,
                   .m = cols,
                   .n = cols,
                   .k = rows,
                   .a = negative.data(),
                   .lda = cols,
                   .b = w.data(),
                   .ldb = cols,
                   .c = state.gram_.data(),
                   .ldc = cols});
  for (int64_t g = 0; g < state.groups(); ++g) {
    for (int64_t i = 0; i < group; ++i) {
      const int64_t at = (g * group + i) * cols + g * group;
      state.inverse_blocks_.insert(state.inverse_blocks_.end(), state.inverse_.begin() + at,
                                   state.inverse_.begin() + at + group);
      state.gram_blocks_.insert(state.gram_blocks_.end(), state.gram_.begin() + at, state.gram_.begin() + at + group);
    }
  }
  for (int64_t g = 0; g < state.groups(); ++g) state.Score(g);
  return state;
}

void ObsElimination::Score(int64_t group) {
  const int64_t size = shape_.group;
  const double* const inverse = inverse_blocks_.data() + group * size * size;
  const double* const gram = gram_blocks_.data() + group * size * size;
  double& score = scores_[static_cast<size_t>(group)];
  if (size == 1) {
    score = *inverse > 0 ? std::max(*gram, 0.0) / *inverse : 0.0;
    return;
  }
  // trace(root^T gram root)
  std::vector<double> root(static_cast<size_t>(size * size));
  InverseRoot(inverse, size, root.data());
  score = 0;
  for (int64_t i = 0; i < size; ++i) {
    for (int64_t j = 0; j < size; ++j) {
      double sum = 0;
      for (int64_t k = 0; k < size; ++k)
        sum += root[static_cast<size_t>(i * size + k)] * root[static_cast<size_t>(j * size + k)];
      score += sum * gram[i * size + j];
    }
  }
  score = std::max(score, 0.0);
}

int64_t ObsElimination::Lowest() const {
  int64_t lowest = -1;
  double limit = 0;
  for (int64_t g = 0; g < groups(); ++g) {
    if (is_removed(g)) continue;
    const double score = scores_[static_cast<size_t>(g)];
    // A score that is not a number loses against every one that is.
    if (lowest >= 0 && !(score < limit) && !(std::isnan(limit) && !std::isnan(score))) continue;
    lowest = g;
    limit = score * (1 - kTie);
  }
  return lowest;
}

std::vector<double> ObsElimination::CurrentRows(const std::vector<double>& matrix, int64_t first, int64_t width) const {
  const int64_t size = shape_.group;
  std::vector<double> rows(matrix.begin() + first * width, matrix.begin() + (first + size) * width);
  const auto subtract = [&](const std::vector<double>& left, const std::vector<double>& right) {
    SubtractProduct({.transpose_a = true,
                     .m = size,
                     .n = width,
                     .k = pending_,
                     .a = left.data() + first,
                     .lda = shape_.cols,
                     .b = right.data(),
                     .ldb = width,
                     .c = rows.data(),
                     .ldc = width});
  };
  if (&matrix == &inverse_) {
    subtract(u_, u_);
  } else if (&matrix == &gram_) {
    subtract(u_, z_);
    subtract(z_, u_);
  } else {
    subtract(u_, v_);
  }
  return rows;
}

ObsElimination::Removal ObsElimination::RemoveNext(Stream& stream) {
  TY_CHECK_GE(left_, 1);
  const int64_t size = shape_.group, cols = shape_.cols, rows = shape_.rows;
  if (pending_ + size > shape_.delay) Flush(stream);
  const int64_t lowest = Lowest();
  const Removal removal{lowest, scores_[static_cast<size_t>(lowest)]};
  const int64_t first = removal.group * size;

  std::vector<double> root(static_cast<size_t>(size * size));
  InverseRoot(inverse_blocks_.data() + removal.group * size * size, size, root.data());
  double* const u = u_.data() + pending_ * cols;
  double* const z = z_.data() + pending_ * cols;
  ApplyRoot(root, CurrentRows(inverse_, first, cols), size, cols, u);
  ApplyRoot(root, CurrentRows(gram_, first, cols), size, cols, z);
  ApplyRoot(root, CurrentRows(weights_, first, rows), size, rows, v_.data() + pending_ * rows);
  // What was removed stays as it is, whatever rounding left of it.
  for (int64_t col = 0; col < cols; ++col) {
    if (!is_removed(col / size)) continue;
    for (int64_t i = 0; i < size; ++i) u[i * cols + col] = z[i * cols + col] = 0;
  }
  // V^T V = root^T G_gg root, of which z holds root^T G_g:.
  std::vector<double> product(static_cast<size_t>(size * size));
  for (int64_t i = 0; i < size; ++i) {
    for (int64_t j = 0; j < size; ++j) {
      double sum = 0;
      for (int64_t k = 0; k < size; ++k) sum += z[i * cols + first + k] * root[static_cast<size_t>(k * size + j)];
      product[static_cast<size_t>(i * size + j)] = sum;
    }
  }
  for (int64_t i = 0; i < size; ++i) {
    for (int64_t k = 0; k < size; ++k) {
      const double factor = 0.5 * product[static_cast<size_t>(i * size + k)];
      for (int64_t col = 0; col < cols; ++col) z[i * cols + col] -= factor * u[k * cols + col];
    }
  }
  pending_ += size;
  removed_[static_cast<size_t>(removal.group)] = true;
  scores_[static_cast<size_t>(removal.group)] = kInfinity;
  --left_;

  stream.pool().ParallelFor(groups(), std::max<int64_t>(1, 4096 / (size * size)), [&](int64_t begin, int64_t end) {
    for (int64_t g = begin; g < end; ++g) {
      if (is_removed(g)) continue;
      for (int64_t i = 0; i < size; ++i) {
        for (int64_t j = 0; j < size; ++j) {
          const int64_t a = g * size + i, b = g * size + j;
          double inverse = 0, gram = 0;
          for (int64_t k = 0; k < size; ++k) {
            inverse += u[k * cols + a] * u[k * cols + b];
            gram += u[k * cols + a] * z[k * cols + b] + z[k * cols + a] * u[k * cols + b];
          }
          inverse_blocks_[static_cast<size_t>((g * size + i) * size + j)] -= inverse;
          gram_blocks_[static_cast<size_t>((g * size + i) * size + j)] -= gram;
        }
      }
      Score(g);
    }
  });
  return removal;
}

void ObsElimination::Flush(Stream& stream) {
  if (pending_ == 0) return;
  const int64_t cols = shape_.cols, rows = shape_.rows;
  SubtractTransposed(u_.data(), v_.data(), cols, rows, pending_, weights_.data(), stream);
  SubtractTransposed(u_.data(), u_.data(), cols, cols, pending_, inverse_.data(), stream);
  SubtractTransposed(u_.data(), z_.data(), cols, cols, pending_, gram_.data(), stream);
  SubtractTransposed(z_.data(), u_.data(), cols, cols, pending_, gram_.data(), stream);
  pending_ = 0;
  for (int64_t col = 0; col < cols; ++col) {
    if (is_removed(col / shape_.group)) std::fill_n(weights_.begin() + col * rows, rows, 0.0);
  }
}

const std::vector<double>& ObsElimination::TransposedWeights(Stream& stream) {
  Flush(stream);
  return weights_;
}

}  // namespace trainyard::kernels
