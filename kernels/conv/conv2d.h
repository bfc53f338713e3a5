// Two-dimensional convolution (cross-correlation) and its transpose, with gradients.
//
// Both are maps between an image, (batch, channels, height, width), and a smaller or equal grid, (batch, filters,
// grid_height, grid_width), given by weights w: (filters, channels, kernel_height, kernel_width):
//
//   convolution   grid[n,f,i,j]  = sum_{c,a,b} w[f,c,a,b] image[n, c, i stride + a - padding, j stride + b - padding]
//   its transpose image[n,c,y,x] = sum of w[f,c,a,b] grid[n,f,i,j] over all i,j,a,b that meet there
//
// with 0 outside the image. The weights of a transposed convolution are (in, out, kh, kw), as PyTorch stores them. Of
// the image sizes that give one grid the larger ones are what PyTorch calls output_padding:
// height = (grid_height - 1) stride - 2 padding + kernel_height + output_padding, output_padding < stride.
//
// On the CPU by unfolding the image into columns, cut into panels that fit the cache, and one library product a panel;
// on a CUDA device by products that find their operands in image and grid (tile_product.h), whose positions must number
// less than 2^31. Panels and partial sums depend on the shape alone, so the bits are the same for any number of
// threads. All tensors are f32, may have any shape of the right size, and alias nothing.
#pragma once

#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"

namespace trainyard::kernels {

struct ConvGeometry {
  int64_t batch = 1;
  int64_t channels = 1;  // of the image
  int64_t height = 1;
  int64_t width = 1;
  int64_t filters = 1;  // channels of the grid
  int64_t kernel_height = 1;
  int64_t kernel_width = 1;
  int64_t stride = 1;   // >= 1, as are all but the padding
  int64_t padding = 0;  // >= 0; the kernel fits into the padded image

  int64_t grid_height() const { return (height + 2 * padding - kernel_height) / stride + 1; }
  int64_t grid_width() const { return (width + 2 * padding - kernel_width) / stride + 1; }
  int64_t image_size() const { return batch * channels * height * width; }
  int64_t grid_size() const { return batch * filters * grid_height() * grid_width(); }
  int64_t weight_size() const { return filters * channels * kernel_height * kernel_width; }
};

// grid = convolution(image) + bias (+ grid if accumulate): a convolution's forward, the input gradient of a transposed
// one (image: dy, grid: dx).
struct ImageToGridArgs {
  ConvGeometry geometry;
  TensorView image, w;
  TensorView bias = {};  // (filters), optional
  TensorView grid;
  bool accumulate = false;
  TensorView workspace;  // ConvWorkspaceBytes
};
void ImageToGrid(const ImageToGridArgs& args, Stream& stream);

// image = transposed convolution(grid) + bias (+ image if accumulate): a transposed convolution's forward, the input
// gradient of a convolution (grid: dy, image: dx).
struct GridToImageArgs {
  ConvGeometry geometry;
  TensorView grid, w;
  TensorView bias = {};  // (channels), optional
  TensorView image;
  bool accumulate = false;
  TensorView workspace;
};
void GridToImage(const GridToImageArgs& args, Stream& stream);

// dw[f,c,a,b] = sum over n,i,j of grid[n,f,i,j] image[n,c,..] (+ dw if accumulate): the weight gradient of both, with
// (image, grid) = (x, dy) of a convolution and (dy, x) of a transposed one.
struct ConvWeightGradientArgs {
  ConvGeometry geometry;
  TensorView image, grid, dw;
  bool accumulate = false;
  TensorView workspace;
};
void ConvWeightGradient(const ConvWeightGradientArgs& args, Stream& stream);

// db[c] = sum over samples and pixels of dy (+ db if accumulate). dy: (batch, channels, pixels), db: (channels).
struct ChannelSumsArgs {
  TensorView dy, db;
  bool accumulate = false;
};
void ChannelSums(const ChannelSumsArgs& args, Stream& stream);

// y[n,c] = mean over pixels of x[n,c,:]; dx[n,c,:] = dy[n,c] / pixels. x, dx: (batch, channels, pixels), y, dy: (batch,
// channels).
struct PixelMeanArgs {
  TensorView x, y;
};
void PixelMeanForward(const PixelMeanArgs& args, Stream& stream);
struct PixelMeanBackwardArgs {
  TensorView dy, dx;
};
void PixelMeanBackward(const PixelMeanBackwardArgs& args, Stream& stream);

// Enough for all three products with up to `threads` threads; with less (down to the amount for 1) they use fewer.
int64_t ConvWorkspaceBytes(const ConvGeometry& geometry, int threads);

}  // namespace trainyard::kernels
