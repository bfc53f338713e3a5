// Cuts one workspace into tensors, each aligned to 64 bytes.
#pragma once

#include <cstdint>
#include <initializer_list>

#include "base/check.h"
#include "kernels/core/dtype.h"
#include "kernels/core/tensor.h"

namespace trainyard::linear {

class Scratch {
 public:
  // What a tensor of so many elements takes.
  static int64_t Bytes(kernels::DType dtype, int64_t elements) {
    return (elements * static_cast<int64_t>(kernels::SizeOf(dtype)) + 63) / 64 * 64;
  }

  explicit Scratch(const kernels::TensorView& workspace) : workspace_(workspace) {}

  kernels::TensorView Take(kernels::DType dtype, std::initializer_list<int64_t> shape) {
    const int64_t elements = kernels::TensorView(nullptr, dtype, shape).size();
    return {TakeBytes(Bytes(dtype, elements)), dtype, shape};
  }

  // All that is left, for an op that has scratch of its own.
  kernels::TensorView Rest() const {
    const int64_t left = workspace_.bytes() - used_;
    return {static_cast<char*>(workspace_.data()) + used_, kernels::DType::kU8, {left}};
  }

 private:
  void* TakeBytes(int64_t bytes) {
    TY_CHECK_LE(used_ + bytes, workspace_.bytes());
    void* const begin = static_cast<char*>(workspace_.data()) + used_;
    used_ += bytes;
    return begin;
  }

  const kernels::TensorView workspace_;
  int64_t used_ = 0;
};

}  // namespace trainyard::linear
