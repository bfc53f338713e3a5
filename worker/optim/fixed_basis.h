// The fixed orthonormal bases that low-rank optimizers choose their directions from: one n x n matrix for each distinct
// length n, shared by all parameters (dct-lowrank.md 2.1).
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>

#include "kernels/core/arena.h"
#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"
#include "kernels/transform/dct.h"
#include "proto/spec/optimizer_options.h"

namespace trainyard::optim {

struct FixedBasis {
  kernels::TensorView vectors;             // f32 (n, n); basis vector j is column j
  std::unique_ptr<kernels::DctPlan> plan;  // there if coordinates are to be computed by FFT

  int64_t n() const { return vectors.dim(0); }
};

class BasisCache {
 public:
  // Overwrites a square f32 matrix with basis vectors in its columns.
  using Fill = std::function<void(const kernels::TensorView& vectors, kernels::Stream& stream)>;

  explicit BasisCache(const spec::SubspaceOptions& options);
  // With bases of the caller's, and no FFT.
  explicit BasisCache(Fill fill) : fill_(std::move(fill)) {}

  // The basis of length n, booked under "basis" when it is asked for first. The pointer stays valid.
  const FixedBasis* Get(int64_t n, kernels::Arena& arena);

  // Computes what has not been computed yet: a basis is a function of n, so no checkpoint holds it.
  void Prepare(kernels::Stream& stream);

 private:
  Fill fill_;
  bool (*uses_fft_)(int64_t n) = [](int64_t) { return false; };
  std::map<int64_t, FixedBasis> bases_;
  bool is_prepared_ = false;
};

// kRandom: the Gram-Schmidt orthogonalisation, in f64, of columns of normal numbers that depend on n alone. Slow: n^3.
void FillRandomBasis(const kernels::TensorView& vectors, kernels::Stream& stream);

}  // namespace trainyard::optim
