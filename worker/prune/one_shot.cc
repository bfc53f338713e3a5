#include "worker/prune/one_shot.h"

#include <algorithm>

#include "base/check.h"
#include "kernels/codec/bit_packing.h"
#include "kernels/gemm/gemm.h"
#include "kernels/prune/prune_select.h"
#include "worker/prune/select.h"
#include "worker/prune/sparse_gpt.h"

namespace trainyard::prune {
namespace {

using kernels::DType;
using kernels::TensorView;

constexpr int64_t kChunk = 512;  // rows whose sums are f32

// The mask of each row by |w| and the inputs' size.
void PruneByWanda(const OneShotOptions& options, const InputMoments& moments, const TensorView& w,
                  std::vector<uint8_t>* kept, kernels::Stream& stream) {
  const int64_t cols = w.dim(1);
  // The order of w^2 sum x^2 is that of |w| |x|; a common factor keeps sums of many inputs in range.
  double largest = 0;
  for (int64_t i = 0; i < cols; ++i) largest = std::max(largest, moments.square_sum(i));
  std::vector<float> squares;
  for (int64_t i = 0; i < cols; ++i) {
    squares.push_back(largest > 0 ? static_cast<float>(moments.square_sum(i) / largest) : 0.0f);
  }
  Selector selector(cols);
  for (int64_t row = 0; row < w.dim(0); ++row) {
    const kernels::PruneScore score = {.w = w.Slice(row, 1), .fisher = {squares.data(), DType::kF32, {cols}}};
    selector.Select(score, options.group, kernels::PrunedCount(cols, kernels::PartsPerMillion(options.sparsity)),
                    kept->data() + row * cols, stream);
  }
}

}  // namespace

InputMoments::InputMoments(int64_t in, bool products)
    : in_(in), has_products_(products), sums_(static_cast<size_t>(products ? in * in : in)) {}

void InputMoments::Add(const TensorView& x, kernels::Stream& stream) {
  TY_CHECK_EQ(x.dim(1), in_);
  if (!has_products_) {
    const float* const values = x.as<float>();
    for (int64_t row = 0; row < x.dim(0); ++row) {
      for (int64_t i = 0; i < in_; ++i) {
        const double value = values[row * in_ + i];
        sums_[static_cast<size_t>(i)] += value * value;
      }
    }
    return;
  }
  std::vector<float> products(sums_.size());
  const TensorView c(products.data(), DType::kF32, {in_, in_});
  for (int64_t row = 0; row < x.dim(0); row += kChunk) {
    const TensorView chunk = x.Slice(row, std::min(kChunk, x.dim(0) - row));
    Gemm({.a = chunk, .b = chunk, .c = c, .transpose_a = true}, stream);
    for (size_t i = 0; i < sums_.size(); ++i) sums_[i] += static_cast<double>(products[i]);
  }
}

absl::Status PruneMatrix(const OneShotOptions& options, const InputMoments& moments, const TensorView& w,
                         std::vector<uint8_t>* kept, kernels::Stream& stream) {
  TY_CHECK(w.dtype() == DType::kF32);
  if (options.group > 0) TY_CHECK_EQ(w.dim(1) % options.group, 0);
  kept->assign(static_cast<size_t>(w.size()), 1);
  if (options.method == Method::kSparseGpt) return PruneBySparseGpt(options, moments, w, kept, stream);
  if (options.method == Method::kWanda) {
    PruneByWanda(options, moments, w, kept, stream);
  } else {
    Selector(w.size()).Select({.w = w}, options.group,
                              kernels::PrunedCount(w.size(), kernels::PartsPerMillion(options.sparsity)), kept->data(),
                              stream);
  }
  float* const values = w.as<float>();
  for (int64_t i = 0; i < w.size(); ++i) values[i] = (*kept)[static_cast<size_t>(i)] != 0 ? values[i] : 0.0f;
  return absl::OkStatus();
}

}  // namespace trainyard::prune
