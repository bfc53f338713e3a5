// Random projections that keep inner products on average (influence-distillation.md 2.6), for vectors of any length.
//
// Hadamard: the vector is padded with zeros to N, the next power of two, multiplied by random signs and by the
// orthonormal Walsh-Hadamard matrix, and k of the N results are kept, drawn without replacement, times sqrt(N / k):
//
//   y = sqrt(N / k) S H D x     E <y, y'> = <x, x'>; with k = N exactly
//
// Rademacher: y_j = k^-1/2 sum_i r_ji x_i, r of +-1.
//
//   Var <y, y'> = (|x|^2 |x'|^2 + <x, x'>^2 - 2 sum_i x_i^2 x'_i^2) / k
//
// Signs and rows follow from the projector's own seed, so two projectors of one seed, kind and length are the same. The
// same bits for any number of threads, and, but for Rademacher's sums, on every device; arithmetic is f32. Cost: N log
// N, or length * k.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/core/philox.h"
#include "kernels/core/stream.h"
#include "kernels/transform/device_array.h"

namespace trainyard::kernels {

// In place: data (size) of the stream's device, a power of two, times the orthonormal Walsh-Hadamard matrix. The same
// bits on every device and any number of threads.
void WalshHadamard(float* data, int64_t size, Stream& stream);

// `count` different numbers below `population`, ascending, drawn by the words of (seed, purpose, tensor) (Floyd's way).
// population <= 2^32.
std::vector<uint32_t> RandomSubset(const PhiloxKey& key, int64_t population, int64_t count);

class RandomProjection {
 public:
  enum class Kind { kHadamard, kRademacher, kNone };

  // length in 1 .. 2^32. `outputs` are cut to what there is (Hadamard: N; none: length). A projection of a CUDA device
  // must outlive the work enqueued with it.
  RandomProjection(Kind kind, int64_t length, int64_t outputs, uint64_t seed, Device device = Device::kCpu);

  int64_t length() const { return length_; }
  int64_t outputs() const { return outputs_; }
  // Floats that Apply needs as scratch: N for Hadamard, else 0.
  int64_t scratch_size() const { return kind_ == Kind::kHadamard ? padded_ : 0; }

  // out (outputs) is overwritten from x (length); scratch (scratch_size) too. Neither aliases x, except that scratch
  // may be x where x's memory is that long. All three are memory of the projection's device; with one of the CPU the
  // work is done on the host, whatever the stream.
  void Apply(const float* x, float* scratch, float* out, Stream& stream) const;

 private:
  const Kind kind_;
  const int64_t length_;
  int64_t padded_ = 0;
  int64_t outputs_ = 0;
  const uint64_t seed_;
  const Device device_;
  internal::DeviceArray<uint32_t> rows_;  // of the transform, ascending
};

}  // namespace trainyard::kernels
