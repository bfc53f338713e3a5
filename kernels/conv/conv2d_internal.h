// How the CPU backend cuts a convolution.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/conv/conv2d.h"

namespace trainyard::kernels::internal {

// A panel is the unfolded form of some rows of the grid of one image, or of the whole grids of several: one column a
// grid position, one row a (channel, kernel row, kernel column).
struct ConvPanels {
  // Columns aimed at: enough for the library to reach its rate, few enough that panels of the usual depth stay in a
  // second-level cache.
  static constexpr int64_t kColumns = 256;
  // Partial sums of the weight gradient. Each costs one addition of the weights, each is a thread's work.
  static constexpr int64_t kParts = 8;

  explicit ConvPanels(const ConvGeometry& g)
      : pixels(g.grid_height() * g.grid_width()),
        depth(g.channels * g.kernel_height * g.kernel_width),
        images(std::clamp<int64_t>((kColumns + pixels - 1) / pixels, 1, g.batch)),
        rows(images > 1 ? g.grid_height() : std::clamp<int64_t>(kColumns / g.grid_width(), 1, g.grid_height())),
        groups((g.batch + images - 1) / images),
        parts(std::min(kParts, groups)),
        max_columns(images * rows * g.grid_width()) {}

  int64_t column_floats() const { return RoundUp(depth * max_columns); }
  // A panel of the grid, gathered or still to be scattered.
  int64_t grid_floats(const ConvGeometry& g) const { return images > 1 ? RoundUp(g.filters * max_columns) : 0; }
  int64_t plane_floats(const ConvGeometry& g) const;
  // What one thread needs.
  int64_t slot_floats(const ConvGeometry& g) const { return column_floats() + grid_floats(g) + plane_floats(g); }
  int64_t part_floats(const ConvGeometry& g) const { return RoundUp(g.weight_size()); }

  int64_t pixels;  // grid positions of an image
  int64_t depth;   // rows of a panel
  int64_t images;  // of a group: if more than 1, their grids are one panel
  int64_t rows;    // grid rows of a panel
  int64_t groups;
  int64_t parts;
  int64_t max_columns;

 private:
  static int64_t RoundUp(int64_t floats) { return (floats + 15) / 16 * 16; }
};

// Part of the grids of a group of images: images [image, image + images), grid rows [row, row + rows).
struct PanelRange {
  int64_t image, images, row, rows;
};

// columns[depth, column]: the values each grid position of the range sees, column = (image, row, position in row).
// scratch: PlaneFloats.
void Unfold(const ConvGeometry& g, const PanelRange& range, const float* image, float* columns, float* scratch);
// The adjoint: adds columns to the pixels they came from.
void FoldAdd(const ConvGeometry& g, const PanelRange& range, const float* columns, float* image, float* scratch);
// Scratch of the two for ranges of up to `rows` grid rows.
int64_t PlaneFloats(const ConvGeometry& g, int64_t rows);

inline int64_t ConvPanels::plane_floats(const ConvGeometry& g) const {
  return RoundUp(PlaneFloats(g, rows));
}

void ImageToGridCpu(const ImageToGridArgs& args, Stream& stream);
void GridToImageCpu(const GridToImageArgs& args, Stream& stream);
void ConvWeightGradientCpu(const ConvWeightGradientArgs& args, Stream& stream);
void ChannelSumsCpu(const ChannelSumsArgs& args, Stream& stream);
void PixelMeanForwardCpu(const PixelMeanArgs& args, Stream& stream);
void PixelMeanBackwardCpu(const PixelMeanBackwardArgs& args, Stream& stream);

void ImageToGridCuda(const ImageToGridArgs& args, Stream& stream);
void GridToImageCuda(const GridToImageArgs& args, Stream& stream);
void ConvWeightGradientCuda(const ConvWeightGradientArgs& args, Stream& stream);
void ChannelSumsCuda(const ChannelSumsArgs& args, Stream& stream);
void PixelMeanForwardCuda(const PixelMeanArgs& args, Stream& stream);
void PixelMeanBackwardCuda(const PixelMeanBackwardArgs& args, Stream& stream);

}  // namespace trainyard::kernels::internal
