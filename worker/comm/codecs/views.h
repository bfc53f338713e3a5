// What a codec is called with, as the kernels take it.
#pragma once

#include "kernels/core/tensor.h"

namespace trainyard::comm {

// Kernels only read what is const here.
inline kernels::TensorView ValuesView(const float* values, int64_t elements) {
  return kernels::TensorView(const_cast<float*>(values), kernels::DType::kF32, {elements});
}

inline kernels::TensorView WireView(const char* wire, int64_t bytes) {
  return kernels::TensorView(const_cast<char*>(wire), kernels::DType::kU8, {bytes});
}

}  // namespace trainyard::comm
