// The orthonormal DCT-II of the rows or columns of a matrix (dct-lowrank.md 2.1, 2.4): the fixed basis of DCT-AdamW and
// Trion, in two forms that agree to rounding.
//
//   P[i,j] = sqrt(2/n) s_j cos(pi j (2i + 1) / (2n)),  s_0 = sqrt(1/2), s_j = 1 else;  P^T P = I
//   axis 1: y = x P       y[r,j] = sum_i x[r,i] P[i,j]     (n columns; basis vector j is column j of P)
//   axis 0: y = P^T x     y[j,c] = sum_i x[i,c] P[i,j]     (n rows)
//
// DctMatrix multiplies by a stored P: 2 n operations an element, any dtype of Gemm. DctFft needs no P: Makhoul's
// reordering and one real FFT of mixed radix, about 2.5 log2(n) operations an element, in f32; any n, at a cost of n
// times the sum of its prime factors. Errors of both are a few 1e-7 of the norm of the row: scores that nearly tie may
// be ordered differently by the two. y is overwritten and aliases nothing. Same bits for any number of threads.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"
#include "kernels/transform/device_array.h"

namespace trainyard::kernels {

// Overwrites basis: (n, n), f32 or bf16, with P, computed in double. In bf16 its columns are orthonormal to 4e-3 only.
struct DctBasisArgs {
  TensorView basis;
};
void DctBasis(const DctBasisArgs& args, Stream& stream);

struct DctMatrixArgs {
  TensorView x;      // f32 or bf16
  TensorView basis;  // (n, n), dtype of x
  TensorView y;      // shape of x; f32 or dtype of x
  int axis = 1;
  TensorView workspace = {};  // DctMatrixWorkspaceBytes; nothing for f32
};
void DctMatrix(const DctMatrixArgs& args, Stream& stream);

// x: (rows, cols).
int64_t DctMatrixWorkspaceBytes(const TensorView& x, int axis);

// What the FFT form of one length needs: factors and trigonometric tables, about 4 n floats, in memory of `device`.
// Immutable once made; may be shared by threads. A plan of a CUDA device must outlive the work enqueued with it; with a
// plan of the CPU, DctFft on a CUDA stream runs on the host.
class DctPlan {
 public:
  explicit DctPlan(int64_t n, Device device = Device::kCpu);  // n >= 1

  int64_t n() const { return n_; }
  Device device() const { return device_; }
  // Bytes that each thread needs during a transform.
  int64_t thread_bytes() const;

  // One pass of the FFT: butterflies of `factor`, with tables.
  struct Pass {
    int64_t factor = 0;
    int64_t groups = 0;               // remaining length / factor
    int64_t stride = 0;               // product of the earlier factors
    const float* twiddles = nullptr;  // (cos, -sin) of 2 pi p j / length, p < groups, j = 1 .. factor - 1
    const float* roots = nullptr;     // (cos, sin) of 2 pi i / factor, i < factor
  };

  int64_t fft_length() const { return fft_length_; }  // n / 2 for even n: two neighbours are one complex number
  const std::vector<Pass>& passes() const { return passes_; }
  // (cos, sin) of pi k / (2n), times the scale of output k; half of that for even n.
  const float* output_factors() const { return output_factors_; }
  // (cos, sin) of 2 pi k / n, k <= n / 2, for even n.
  const float* split_factors() const { return split_factors_; }

 private:
  int64_t n_, fft_length_;
  Device device_;
  std::vector<Pass> passes_;
  internal::DeviceArray<float> tables_;  // what the pointers of passes_ and these two point into
  const float* output_factors_ = nullptr;
  const float* split_factors_ = nullptr;
};

struct DctFftArgs {
  TensorView x;  // f32 or bf16 (rows, cols)
  const DctPlan* plan = nullptr;
  TensorView y;  // f32, shape of x
  int axis = 1;
  // Aligned to 64; thread_bytes() of the plan for each thread that shall work, at least once. A CUDA device needs it
  // only for lengths whose numbers are too many for shared memory.
  TensorView workspace;
};
void DctFft(const DctFftArgs& args, Stream& stream);

}  // namespace trainyard::kernels
