#include <algorithm>

#include "kernels/conv/conv2d_internal.h"
#include "kernels/core/simd.h"

// Between the image and the columns lie, one channel of one image at a time, its "phase planes": the padded channel cut
// by the stride, so that plane (u, v) at (q, r) is the padded channel at (q stride + u, r stride + v). Whatever stride
// and padding, each row of columns is then a run of neighbouring values of a plane, with no edges to mind.
namespace trainyard::kernels::internal {
namespace {

struct Planes {
  Planes(const ConvGeometry& g, const PanelRange& range)
      : rows(range.rows + (g.kernel_height - 1) / g.stride),
        cols(g.grid_width() + (g.kernel_width - 1) / g.stride),
        across(std::min(g.stride, g.kernel_width)),
        down(std::min(g.stride, g.kernel_height)) {}
  int64_t offset(int64_t u, int64_t v) const { return (u * across + v) * rows * cols; }
  int64_t floats() const { return down * across * rows * cols; }
  int64_t rows, cols;
  int64_t across, down;  // phases that the kernel meets
};

// Positions [begin, end) of a plane's row that are inside the image: position * stride + offset is in [0, extent).
struct Inside {
  TY_INLINE Inside(int64_t offset, int64_t stride, int64_t extent, int64_t count)
      : begin(std::clamp<int64_t>(offset >= 0 ? 0 : (-offset + stride - 1) / stride, 0, count)),
        end(std::clamp<int64_t>(extent > offset ? (extent - 1 - offset) / stride + 1 : 0, begin, count)) {}
  int64_t begin, end;
};

// Calls row(plane row, image row at the plane's first column or null if outside, inside) for all rows of all planes.
template <typename Image, typename Row>
TY_INLINE void ForPlaneRows(const ConvGeometry& g, const PanelRange& range, const Planes& planes, Image* channel,
                            float* memory, const Row& row) {
  for (int64_t v = 0; v < planes.across; ++v) {
    const int64_t offset = v - g.padding;
    const Inside inside(offset, g.stride, g.width, planes.cols);
    for (int64_t u = 0; u < planes.down; ++u) {
      float* plane = memory + planes.offset(u, v);
      for (int64_t q = 0; q < planes.rows; ++q) {
        const int64_t y = (range.row + q) * g.stride + u - g.padding;
        row(plane + q * planes.cols, y < 0 || y >= g.height ? nullptr : channel + y * g.width + offset, inside);
      }
    }
  }
}

// kStride 0: any, given at run time.
template <int kStride>
TY_INLINE void FillPlanes(const ConvGeometry& g, const PanelRange& range, const Planes& planes, const float* channel,
                          float* memory) {
  const auto fill = [&](float* to, const float* from, const Inside& inside) TY_INLINE_LAMBDA {
    if (from == nullptr) {
      std::fill_n(to, planes.cols, 0.0f);
      return;
    }
    const int64_t stride = kStride == 0 ? g.stride : kStride;
#pragma GCC ivdep
    for (int64_t r = inside.begin; r < inside.end; ++r) to[r] = from[r * stride];
    if (inside.begin > 0) std::fill_n(to, inside.begin, 0.0f);
    if (inside.end < planes.cols) std::fill_n(to + inside.end, planes.cols - inside.end, 0.0f);
  };
  ForPlaneRows(g, range, planes, channel, memory, fill);
}

template <int kStride>
TY_INLINE void AddPlanes(const ConvGeometry& g, const PanelRange& range, const Planes& planes, float* memory,
                         float* channel) {
  const auto add = [&](const float* from, float* to, const Inside& inside) TY_INLINE_LAMBDA {
    if (to == nullptr) return;
    const int64_t stride = kStride == 0 ? g.stride : kStride;
#pragma GCC ivdep
    for (int64_t r = inside.begin; r < inside.end; ++r) to[r * stride] += from[r];
  };
  ForPlaneRows(g, range, planes, channel, memory, add);
}

// The runs between the plane and the columns of one (kernel row, kernel column). kWidth 0: any, given at run time.
template <int kWidth>
TY_INLINE void CopyRuns(const float* plane, int64_t cols, float* columns, int64_t rows, int64_t grid_width) {
  const int64_t width = kWidth == 0 ? grid_width : kWidth;
  for (int64_t i = 0; i < rows; ++i) {
#pragma GCC ivdep
    for (int64_t j = 0; j < width; ++j) columns[i * width + j] = plane[i * cols + j];
  }
}
template <int kWidth>
TY_INLINE void AddRuns(float* plane, int64_t cols, const float* columns, int64_t rows, int64_t grid_width) {
  const int64_t width = kWidth == 0 ? grid_width : kWidth;
  for (int64_t i = 0; i < rows; ++i) {
#pragma GCC ivdep
    for (int64_t j = 0; j < width; ++j) plane[i * cols + j] += columns[i * width + j];
  }
}

TY_SIMD void CopyRunsOf(const float* plane, int64_t cols, float* columns, int64_t rows, int64_t width) {
  if (width == 4) return CopyRuns<4>(plane, cols, columns, rows, width);
  if (width == 8) return CopyRuns<8>(plane, cols, columns, rows, width);
  if (width == 16) return CopyRuns<16>(plane, cols, columns, rows, width);
  if (width == 32) return CopyRuns<32>(plane, cols, columns, rows, width);
  CopyRuns<0>(plane, cols, columns, rows, width);
}
TY_SIMD void AddRunsOf(float* plane, int64_t cols, const float* columns, int64_t rows, int64_t width) {
  if (width == 4) return AddRuns<4>(plane, cols, columns, rows, width);
  if (width == 8) return AddRuns<8>(plane, cols, columns, rows, width);
  if (width == 16) return AddRuns<16>(plane, cols, columns, rows, width);
  if (width == 32) return AddRuns<32>(plane, cols, columns, rows, width);
  AddRuns<0>(plane, cols, columns, rows, width);
}

TY_SIMD void FillPlanesOf(const ConvGeometry& g, const PanelRange& range, const Planes& planes, const float* channel,
                          float* memory) {
  if (g.stride == 1) return FillPlanes<1>(g, range, planes, channel, memory);
  if (g.stride == 2) return FillPlanes<2>(g, range, planes, channel, memory);
  FillPlanes<0>(g, range, planes, channel, memory);
}
TY_SIMD void AddPlanesOf(const ConvGeometry& g, const PanelRange& range, const Planes& planes, float* memory,
                         float* channel) {
  if (g.stride == 1) return AddPlanes<1>(g, range, planes, memory, channel);
  if (g.stride == 2) return AddPlanes<2>(g, range, planes, memory, channel);
  AddPlanes<0>(g, range, planes, memory, channel);
}

// Calls run(first value of the runs in the planes, first column) for each (kernel row, kernel column) of channel c and
// image n of the range.
template <typename Columns, typename Run>
void ForRuns(const ConvGeometry& g, const PanelRange& range, const Planes& planes, int64_t c, int64_t n, float* memory,
             Columns* columns, const Run& run) {
  const int64_t per_image = range.rows * g.grid_width();
  Columns* to = columns + c * g.kernel_height * g.kernel_width * range.images * per_image + n * per_image;
  for (int64_t a = 0; a < g.kernel_height; ++a) {
    for (int64_t b = 0; b < g.kernel_width; ++b) {
      float* plane = memory + planes.offset(a % g.stride, b % g.stride);
      run(plane + a / g.stride * planes.cols + b / g.stride, to);
      to += range.images * per_image;
    }
  }
}

}  // namespace

int64_t PlaneFloats(const ConvGeometry& g, int64_t rows) {
  return Planes(g, {0, 1, 0, rows}).floats();
}

void Unfold(const ConvGeometry& g, const PanelRange& range, const float* image, float* columns, float* scratch) {
  const Planes planes(g, range);
  for (int64_t c = 0; c < g.channels; ++c) {
    for (int64_t n = 0; n < range.images; ++n) {
      const float* channel = image + ((range.image + n) * g.channels + c) * g.height * g.width;
      FillPlanesOf(g, range, planes, channel, scratch);
      ForRuns(g, range, planes, c, n, scratch, columns,
              [&](const float* plane, float* to) { CopyRunsOf(plane, planes.cols, to, range.rows, g.grid_width()); });
    }
  }
}

void FoldAdd(const ConvGeometry& g, const PanelRange& range, const float* columns, float* image, float* scratch) {
  const Planes planes(g, range);
  for (int64_t c = 0; c < g.channels; ++c) {
    for (int64_t n = 0; n < range.images; ++n) {
      std::fill_n(scratch, planes.floats(), 0.0f);
      ForRuns(g, range, planes, c, n, scratch, columns, [&](float* plane, const float* from) {
        AddRunsOf(plane, planes.cols, from, range.rows, g.grid_width());
      });
      AddPlanesOf(g, range, planes, scratch, image + ((range.image + n) * g.channels + c) * g.height * g.width);
    }
  }
}

}  // namespace trainyard::kernels::internal
