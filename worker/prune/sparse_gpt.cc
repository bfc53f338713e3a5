#include "worker/prune/sparse_gpt.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "kernels/prune/linalg/cholesky.h"
#include "worker/prune/select.h"

namespace trainyard::prune {
namespace {

using kernels::DType;
using kernels::TensorView;

constexpr int64_t kRowGrain = 8;

class SparseGpt {
 public:
  SparseGpt(const OneShotOptions& options, const TensorView& w, std::vector<uint8_t>* kept)
      : options_(options),
        parts_per_million_(kernels::PartsPerMillion(options.sparsity)),
        rows_(w.dim(0)),
        cols_(w.dim(1)),
        w_(w.as<float>(), w.as<float>() + w.size()),
        kept_(kept),
        selector_(rows_ * std::min(options.block, cols_)) {}

  // U from the inputs' products; clears columns that no input reaches.
  absl::Status Factor(const InputMoments& moments) {
    factor_.assign(moments.products().begin(), moments.products().end());
    double mean = 0;
    for (int64_t i = 0; i < cols_; ++i) {
      double& diagonal = factor_[Index(i, i)];
      if (!std::isfinite(diagonal)) return absl::FailedPreconditionError("the inputs are not finite");
      if (diagonal == 0) {
        diagonal = 1;
        for (int64_t row = 0; row < rows_; ++row) w_[Index(row, i)] = 0;
      }
      mean += diagonal / static_cast<double>(cols_);
    }
    for (int64_t i = 0; i < cols_; ++i) factor_[Index(i, i)] += options_.damping * mean;
    return kernels::InverseCholesky(factor_.data(), cols_);
  }

  void Run(kernels::Stream& stream) {
    for (int64_t begin = 0; begin < cols_; begin += options_.block) {
      const int64_t end = std::min(begin + options_.block, cols_);
      if (options_.group == 0) {
        // Counted through, so that the blocks' whole parts add up to the matrix'.
        const int64_t count = kernels::PrunedCount(rows_ * end, parts_per_million_) -
                              kernels::PrunedCount(rows_ * begin, parts_per_million_);
        ChooseMask(begin, end, 0, count, stream);
        PruneColumns(begin, begin, end, end, stream);
      } else {
        for (int64_t first = begin; first < end; first += options_.group) {
          ChooseMask(first, first + options_.group, options_.group, 0, stream);
          PruneColumns(begin, first, first + options_.group, end, stream);
        }
      }
      kernels::SubtractProduct({.m = rows_,
                                .n = cols_ - end,
                                .k = end - begin,
                                .a = errors_.data(),
                                .lda = end - begin,
                                .b = factor_.data() + Index(begin, end),
                                .ldb = cols_,
                                .c = w_.data() + end,
                                .ldc = cols_});
    }
  }

  void Store(const TensorView& w) const {
    for (size_t i = 0; i < w_.size(); ++i) w.as<float>()[i] = (*kept_)[i] != 0 ? static_cast<float>(w_[i]) : 0.0f;
  }

 private:
  size_t Index(int64_t row, int64_t col) const { return static_cast<size_t>(row * cols_ + col); }

  // Of columns [begin, end), by what the weights are now.
  void ChooseMask(int64_t begin, int64_t end, int group, int64_t count, kernels::Stream& stream) {
    const int64_t width = end - begin;
    std::vector<float> w, fisher;
    for (int64_t row = 0; row < rows_; ++row) {
      for (int64_t col = begin; col < end; ++col) {
        const double diagonal = factor_[Index(col, col)];
        w.push_back(static_cast<float>(w_[Index(row, col)]));
        fisher.push_back(static_cast<float>(1.0 / (diagonal * diagonal)));
      }
    }
    std::vector<uint8_t> kept(w.size());
    const int64_t size = rows_ * width;
    selector_.Select({.w = {w.data(), DType::kF32, {size}}, .fisher = {fisher.data(), DType::kF32, {size}}}, group,
                     count, kept.data(), stream);
    for (int64_t row = 0; row < rows_; ++row) {
      std::copy_n(kept.begin() + row * width, width, kept_->begin() + row * cols_ + begin);
    }
  }

  // Columns [first, last) of the block [begin, end): weights to zero, the rest of the block moved, errors kept.
  void PruneColumns(int64_t begin, int64_t first, int64_t last, int64_t end, kernels::Stream& stream) {
    const int64_t width = end - begin;
    errors_.resize(static_cast<size_t>(rows_ * width));
    stream.pool().ParallelFor(rows_, kRowGrain, [&](int64_t row_begin, int64_t row_end) {
      for (int64_t row = row_begin; row < row_end; ++row) {
        double* const w = w_.data() + row * cols_;
        for (int64_t col = first; col < last; ++col) {
          const double* const factor = factor_.data() + col * cols_;
          const double error = (*kept_)[Index(row, col)] != 0 ? 0.0 : w[col] / factor[col];
          errors_[static_cast<size_t>(row * width + col - begin)] = error;
          if (error == 0) continue;
          for (int64_t i = col; i < end; ++i) w[i] -= error * factor[i];
        }
      }
    });
  }

  const OneShotOptions options_;
  const int64_t parts_per_million_;
  const int64_t rows_, cols_;
  std::vector<double> w_;       // (rows, cols)
  std::vector<double> factor_;  // (cols, cols)
  std::vector<double> errors_;  // (rows, columns of the block)
  std::vector<uint8_t>* const kept_;
  Selector selector_;
};

}  // namespace

absl::Status PruneBySparseGpt(const OneShotOptions& options, const InputMoments& moments, const TensorView& w,
                              std::vector<uint8_t>* kept, kernels::Stream& stream) {
  TY_CHECK_EQ(moments.in(), w.dim(1));
  if (options.group > 0) TY_CHECK_EQ(options.block % options.group, 0);
  SparseGpt state(options, w, kept);
  TY_RETURN_IF_ERROR(state.Factor(moments));
  state.Run(stream);
  state.Store(w);
  return absl::OkStatus();
}

}  // namespace trainyard::prune
