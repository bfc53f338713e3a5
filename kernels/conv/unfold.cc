#include <algorithm>
#include <cstring>

#include "kernels/conv/conv2d_internal.h"
#include "kernels/core/simd.h"

namespace trainyard::kernels::internal {
namespace {

// Grid positions [begin, end) of a row whose image position, position * stride + offset, is inside [0, extent).
struct Inside {
  Inside(int64_t offset, int64_t stride, int64_t extent, int64_t count)
      : begin(std::clamp<int64_t>(offset >= 0 ? 0 : (-offset + stride - 1) / stride, 0, count)),
        end(std::clamp<int64_t>(extent > offset ? (extent - 1 - offset) / stride + 1 : 0, begin, count)) {}
  int64_t begin, end;
};

// kStride 0: any, given at run time.
template <int kStride>
TY_INLINE void CopyStrided(const float* from, float* to, int64_t count, int64_t stride) {
  const int64_t step = kStride == 0 ? stride : kStride;
#pragma GCC ivdep
  for (int64_t i = 0; i < count; ++i) to[i] = from[i * step];
}

template <int kStride>
TY_INLINE void AddStrided(const float* from, float* to, int64_t count, int64_t stride) {
  const int64_t step = kStride == 0 ? stride : kStride;
#pragma GCC ivdep
  for (int64_t i = 0; i < count; ++i) to[i * step] += from[i];
}

// Calls row(image row or null if outside, columns row, inside) for each (channel, kernel row, kernel column, image,
// grid row) of the range, in this order.
template <typename Image, typename Columns, typename Row>
TY_INLINE void ForRows(const ConvGeometry& g, const PanelRange& range, Image* image, Columns* columns, const Row& row) {
  const int64_t grid_width = g.grid_width();
  for (int64_t c = 0; c < g.channels; ++c) {
    for (int64_t a = 0; a < g.kernel_height; ++a) {
      for (int64_t b = 0; b < g.kernel_width; ++b) {
        const int64_t offset = b - g.padding;
        const Inside inside(offset, g.stride, g.width, grid_width);
        for (int64_t n = range.image; n < range.image + range.images; ++n) {
          Image* plane = image + (n * g.channels + c) * g.height * g.width;
          for (int64_t i = range.row; i < range.row + range.rows; ++i, columns += grid_width) {
            const int64_t y = i * g.stride + a - g.padding;
            Image* pixels = y < 0 || y >= g.height ? nullptr : plane + y * g.width + inside.begin * g.stride + offset;
            row(pixels, columns, inside);
          }
        }
      }
    }
  }
}

template <int kStride>
TY_INLINE void UnfoldRows(const ConvGeometry& g, const PanelRange& range, const float* image, float* columns) {
  const int64_t grid_width = g.grid_width();
  ForRows(g, range, image, columns, [&](const float* pixels, float* out, const Inside& inside) TY_INLINE_LAMBDA {
    if (pixels == nullptr) {
      for (int64_t j = 0; j < grid_width; ++j) out[j] = 0;
      return;
    }
    for (int64_t j = 0; j < inside.begin; ++j) out[j] = 0;
    CopyStrided<kStride>(pixels, out + inside.begin, inside.end - inside.begin, g.stride);
    for (int64_t j = inside.end; j < grid_width; ++j) out[j] = 0;
  });
}

template <int kStride>
TY_INLINE void FoldRows(const ConvGeometry& g, const PanelRange& range, const float* columns, float* image) {
  ForRows(g, range, image, columns, [&](float* pixels, const float* in, const Inside& inside) TY_INLINE_LAMBDA {
    if (pixels == nullptr) return;
    AddStrided<kStride>(in + inside.begin, pixels, inside.end - inside.begin, g.stride);
  });
}

}  // namespace

TY_SIMD void Unfold(const ConvGeometry& g, const PanelRange& range, const float* image, float* columns) {
  if (g.stride == 1) return UnfoldRows<1>(g, range, image, columns);
  if (g.stride == 2) return UnfoldRows<2>(g, range, image, columns);
  UnfoldRows<0>(g, range, image, columns);
}

TY_SIMD void FoldAdd(const ConvGeometry& g, const PanelRange& range, const float* columns, float* image) {
  if (g.stride == 1) return FoldRows<1>(g, range, columns, image);
  if (g.stride == 2) return FoldRows<2>(g, range, columns, image);
  FoldRows<0>(g, range, columns, image);
}

}  // namespace trainyard::kernels::internal
