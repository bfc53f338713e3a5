#include "kernels/prune/obs.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "kernels/gemm/gemm.h"
#include "kernels/gemm/sgemm.h"
#include "kernels/prune/obs_elimination.h"

namespace trainyard::kernels {
namespace {

constexpr int64_t kTile = 256;

// One level after the other, as columns go.
class LevelWriter {
 public:
  LevelWriter(const ObsArgs& args, absl::FunctionRef<absl::Status(const ObsLevel&)> on_level)
      : args_(args), on_level_(on_level), rows_(args.w.dim(0)), cols_(args.w.dim(1)) {
    is_removed_.assign(static_cast<size_t>(cols_), false);
  }

  bool is_done() const { return next_ == args_.removed.size(); }
  bool is_due() const { return !is_done() && removed_count_ == args_.removed[next_]; }

  void Remove(int64_t group) {
    std::fill_n(is_removed_.begin() + group * args_.group, args_.group, true);
    removed_count_ += args_.group;
  }

  // `weight(row, col)` is called for kept columns.
  template <typename Weight>
  absl::Status Write(double error, const Weight& weight) {
    ObsLevel level{static_cast<int64_t>(next_), error, {}, {}};
    for (int64_t col = 0; col < cols_; ++col) {
      if (!is_removed_[static_cast<size_t>(col)]) level.kept.push_back(static_cast<int32_t>(col));
    }
    for (int64_t row = 0; row < rows_; ++row) {
      for (int32_t col : level.kept) level.weights.push_back(weight(row, col));
    }
    ++next_;
    return on_level_(level);
  }

 private:
  const ObsArgs& args_;
  const absl::FunctionRef<absl::Status(const ObsLevel&)> on_level_;
  const int64_t rows_, cols_;
  std::vector<bool> is_removed_;
  int64_t removed_count_ = 0;
  size_t next_ = 0;
};

absl::Status CheckFinite(const TensorView& tensor, const char* name) {
  const float* const values = tensor.as<float>();
  for (int64_t i = 0; i < tensor.size(); ++i) {
    if (!std::isfinite(values[i])) {
      return absl::FailedPreconditionError(absl::StrCat(name, ": element ", i, " is ", values[i], ", not finite"));
    }
  }
  return absl::OkStatus();
}

// Copies in double, with dead columns taken care of and damped.
struct Prepared {
  std::vector<double> w, hessian;
};
Prepared Prepare(const ObsArgs& args) {
  const int64_t rows = args.w.dim(0), cols = args.w.dim(1);
  Prepared result;
  result.w.assign(args.w.as<float>(), args.w.as<float>() + rows * cols);
  result.hessian.assign(args.hessian.as<float>(), args.hessian.as<float>() + cols * cols);
  const auto diagonal = [&](int64_t col) -> double& { return result.hessian[static_cast<size_t>(col * cols + col)]; };
  double mean = 0;
  for (int64_t col = 0; col < cols; ++col) {
    if (diagonal(col) == 0) {
      diagonal(col) = 1;
      for (int64_t row = 0; row < rows; ++row) result.w[static_cast<size_t>(row * cols + col)] = 0;
    }
    bool is_zero = true;
    for (int64_t row = 0; row < rows && is_zero; ++row) is_zero = result.w[static_cast<size_t>(row * cols + col)] == 0;
    if (is_zero) {
      for (int64_t i = 0; i < cols; ++i) {
        result.hessian[static_cast<size_t>(col * cols + i)] = result.hessian[static_cast<size_t>(i * cols + col)] = 0;
      }
      diagonal(col) = 1;
    }
    mean += diagonal(col) / static_cast<double>(cols);
  }
  for (int64_t col = 0; col < cols; ++col) diagonal(col) += args.relative_damping * mean;
  return result;
}

absl::Status ByMagnitude(const ObsArgs& args, LevelWriter& levels) {
  const int64_t rows = args.w.dim(0), cols = args.w.dim(1);
  const float* const w = args.w.as<float>();
  const float* const hessian = args.hessian.as<float>();
  const auto product = [&](int64_t a, int64_t b) {
    double sum = 0;
    for (int64_t row = 0; row < rows; ++row) sum += double{w[row * cols + a]} * w[row * cols + b];
    return sum;
  };
  std::vector<double> norms(static_cast<size_t>(cols / args.group), 0.0);
  for (int64_t col = 0; col < cols; ++col) norms[static_cast<size_t>(col / args.group)] += product(col, col);
  std::vector<int64_t> order(norms.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return norms[static_cast<size_t>(a)] < norms[static_cast<size_t>(b)]; });
  std::vector<int64_t> gone;  // columns
  double error = 0;
  for (size_t next = 0;; ++next) {
    if (levels.is_due()) {
      TY_RETURN_IF_ERROR(levels.Write(error, [&](int64_t row, int64_t col) { return w[row * cols + col]; }));
    }
    if (levels.is_done()) return absl::OkStatus();
    for (int64_t i = 0; i < args.group; ++i) {
      const int64_t col = order[next] * args.group + i;
      // What the products of the new column with itself and with those that went before add to the trace.
      error += 0.5 * hessian[col * cols + col] * product(col, col);
      for (int64_t other : gone) error += hessian[col * cols + other] * product(col, other);
      gone.push_back(col);
    }
    levels.Remove(order[next]);
  }
}

absl::Status ByElimination(const ObsArgs& args, LevelWriter& levels, Stream& stream) {
  const int64_t rows = args.w.dim(0), cols = args.w.dim(1);
  const float* const w = args.w.as<float>();
  if (levels.is_due()) {
    TY_RETURN_IF_ERROR(levels.Write(0, [&](int64_t row, int64_t col) { return w[row * cols + col]; }));
  }
  if (levels.is_done()) return absl::OkStatus();
  Prepared prepared = Prepare(args);
  TY_ASSIGN_OR_RETURN(ObsElimination state,
                      ObsElimination::Create({.rows = rows, .cols = cols, .group = args.group, .delay = args.delay},
                                             prepared.w, std::move(prepared.hessian)));
  double error = 0;
  while (!levels.is_done()) {
    const ObsElimination::Removal removal = state.RemoveNext(stream);
    error += removal.score / 2;
    levels.Remove(removal.group);
    if (!levels.is_due()) continue;
    if (!std::isfinite(error)) {
      return absl::FailedPreconditionError(
          absl::StrCat("the error after ", state.groups() - state.left(), " removals is not finite"));
    }
    const std::vector<double>& transposed = state.TransposedWeights(stream);
    TY_RETURN_IF_ERROR(levels.Write(error, [&](int64_t row, int64_t col) {
      return static_cast<float>(transposed[static_cast<size_t>(col * rows + row)]);
    }));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ObsLevels(const ObsArgs& args, absl::FunctionRef<absl::Status(const ObsLevel&)> on_level, Stream& stream) {
  TY_CHECK_EQ(args.w.rank(), 2);
  TY_CHECK_EQ(args.hessian.size(), args.w.dim(1) * args.w.dim(1));
  int64_t before = -1;
  for (int32_t removed : args.removed) {
    TY_CHECK_LT(before, removed);
    TY_CHECK_EQ(removed % args.group, 0);
    TY_CHECK_LE(removed, args.w.dim(1));
    before = removed;
  }
  TY_RETURN_IF_ERROR(CheckFinite(args.w, "weights"));
  TY_RETURN_IF_ERROR(CheckFinite(args.hessian, "second moments of the inputs"));
  LevelWriter levels(args, on_level);
  return args.by_magnitude ? ByMagnitude(args, levels) : ByElimination(args, levels, stream);
}

void AccumulateHessian(const AccumulateHessianArgs& args, Stream& stream) {
  const int64_t tokens = args.x.dim(0), cols = args.x.dim(1);
  TY_CHECK_EQ(args.hessian.size(), cols * cols);
  const int64_t tiles = (cols + kTile - 1) / kTile;
  float* const hessian = args.hessian.as<float>();
  const float* const x = args.x.as<float>();
  if (tokens == 0) return;
  if (stream.device() == Device::kCuda) {  // twice the work, and one call
    return Gemm({.a = args.x,
                 .b = args.x,
                 .c = args.hessian.Reshape({cols, cols}),
                 .transpose_a = true,
                 .alpha = args.scale,
                 .beta = 1},
                stream);
  }
  stream.pool().ParallelFor(tiles * tiles, 1, [&](int64_t begin, int64_t end) {
    for (int64_t tile = begin; tile < end; ++tile) {
      const int64_t row = tile / tiles * kTile, col = tile % tiles * kTile;
      if (col < row) continue;
      Sgemm({.transpose_a = true,
             .m = std::min(kTile, cols - row),
             .n = std::min(kTile, cols - col),
             .k = tokens,
             .alpha = args.scale,
             .a = x + row,
             .lda = cols,
             .b = x + col,
             .ldb = cols,
             .beta = 1,
             .c = hessian + row * cols + col,
             .ldc = cols});
    }
  });
}

void MirrorHessian(const TensorView& hessian, Stream& stream) {
  const int64_t cols = hessian.dim(0);
  float* const values = hessian.as<float>();
  stream.pool().ParallelFor(cols, 16, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t col = 0; col < row; ++col) values[row * cols + col] = values[col * cols + row];
    }
  });
}

}  // namespace trainyard::kernels
