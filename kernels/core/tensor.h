// A typed view of memory somebody else owns: pointer, dtype, shape. Always dense and row-major.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>

#include "base/check.h"
#include "kernels/core/dtype.h"

namespace trainyard::kernels {

inline constexpr int kMaxRank = 4;

class TensorView {
 public:
  TensorView() = default;
  TensorView(void* data, DType dtype, std::initializer_list<int64_t> shape) : data_(data), dtype_(dtype) {
    TY_CHECK_LE(shape.size(), static_cast<size_t>(kMaxRank));
    for (int64_t extent : shape) {
      TY_CHECK_GE(extent, 0);
      shape_[static_cast<size_t>(rank_++)] = extent;
    }
  }

  // A view that is not there (an optional argument) has no data.
  explicit operator bool() const { return data_ != nullptr; }

  void* data() const { return data_; }
  DType dtype() const { return dtype_; }
  int rank() const { return rank_; }
  int64_t dim(int axis) const {
    TY_CHECK_GE(axis, 0);
    TY_CHECK_LT(axis, rank_);
    return shape_[static_cast<size_t>(axis)];
  }
  int64_t size() const {  // elements
    int64_t product = 1;
    for (int axis = 0; axis < rank_; ++axis) product *= shape_[static_cast<size_t>(axis)];
    return product;
  }
  int64_t bytes() const { return size() * static_cast<int64_t>(SizeOf(dtype_)); }

  template <typename T>
  T* as() const {
    TY_CHECK(DTypeOf<T>::value == dtype_);
    return static_cast<T*>(data_);
  }

  // The same elements under another shape of equal size.
  TensorView Reshape(std::initializer_list<int64_t> shape) const {
    TensorView view(data_, dtype_, shape);
    TY_CHECK_EQ(view.size(), size());
    return view;
  }

  // Rows [begin, begin + count) of the first axis.
  TensorView Slice(int64_t begin, int64_t count) const {
    TY_CHECK_GE(rank_, 1);
    TY_CHECK_LE(0, begin);
    TY_CHECK_LE(begin + count, shape_[0]);
    TensorView view = *this;
    view.shape_[0] = count;
    const int64_t row_bytes = shape_[0] == 0 ? 0 : bytes() / shape_[0];
    view.data_ = static_cast<char*>(data_) + begin * row_bytes;
    return view;
  }

 private:
  void* data_ = nullptr;
  DType dtype_ = DType::kF32;
  int rank_ = 0;
  std::array<int64_t, kMaxRank> shape_{};
};

inline bool SameShape(const TensorView& a, const TensorView& b) {
  if (a.rank() != b.rank()) return false;
  for (int axis = 0; axis < a.rank(); ++axis) {
    if (a.dim(axis) != b.dim(axis)) return false;
  }
  return true;
}

}  // namespace trainyard::kernels
