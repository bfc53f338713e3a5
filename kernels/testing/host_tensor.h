// A tensor that owns its memory, for tests and benchmarks: filled with random or given values, read back as doubles.
// The memory is one that the device under test can reach; reading waits for that device. 64 guard bytes lie on both
// sides; the destructor fails the test if an op wrote there.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/core/device.h"
#include "kernels/core/tensor.h"

namespace trainyard::kernels::testing {

class HostTensor {
 public:
  // Zeros. `shape` has up to kMaxRank extents, each >= 0.
  HostTensor(DType dtype, const std::vector<int64_t>& shape);
  HostTensor(HostTensor&&) = default;
  HostTensor& operator=(HostTensor&&) = default;
  ~HostTensor();

  // Normal values times `scale`, a function of (seed, element), rounded to the dtype (f32 or bf16).
  static HostTensor Normal(DType dtype, const std::vector<int64_t>& shape, uint64_t seed, double scale = 1);
  // The given values, rounded to the dtype (f32, bf16 or i32).
  static HostTensor Of(DType dtype, const std::vector<int64_t>& shape, const std::vector<double>& values);
  // Every element `value`: what a test writes first where an op must overwrite.
  static HostTensor Filled(DType dtype, const std::vector<int64_t>& shape, double value);
  HostTensor Copy() const;

  operator const TensorView&() const { return view_; }  // NOLINT: reads like the tensor in args
  const TensorView& view() const { return view_; }
  template <typename T>
  T* as() const {
    TY_CHECK_OK(SynchronizeDevice());
    return view_.as<T>();
  }

  std::vector<double> ToDoubles() const;  // exact; f32, bf16 or i32
  std::vector<uint8_t> Bytes() const;     // for tests of equal bits

 private:
  struct Free {
    int64_t device_bytes;  // 0: of the heap
    void operator()(char* memory) const;
  };
  using Memory = std::unique_ptr<char[], Free>;
  static Memory Reserve(int64_t bytes);

  Memory memory_;
  TensorView view_;
};

// Uniform whole numbers in [0, limit), a function of (seed, element): token ids, targets.
HostTensor RandomTokens(int64_t count, int64_t limit, uint64_t seed);

}  // namespace trainyard::kernels::testing
