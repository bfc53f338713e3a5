// A primal and its tangents one behind the other: (1 + tangents, rows, cols), row-major. A `dot` is a tangent: d/dh of
// the value when every input and parameter moves along its own tangent.
#pragma once

#include <cstdint>

namespace trainyard::kernels {

template <typename T>
struct Dual {
  T* data = nullptr;
  int64_t tangents = 0;
  int64_t rows = 0;
  int64_t cols = 0;

  // constexpr: kernels call them too.
  constexpr int64_t part_size() const { return rows * cols; }
  constexpr int64_t size() const { return (1 + tangents) * part_size(); }
  constexpr T* value() const { return data; }
  constexpr T* tangent(int64_t k) const { return data + (1 + k) * part_size(); }
};

}  // namespace trainyard::kernels
