#include "kernels/conv/conv2d.h"

#include "kernels/conv/conv2d_internal.h"
#include "kernels/core/dispatch.h"

namespace trainyard::kernels {
namespace {

void CheckGeometry(const ConvGeometry& g) {
  TY_CHECK_GE(g.batch, 1);
  TY_CHECK_GE(g.channels, 1);
  TY_CHECK_GE(g.filters, 1);
  TY_CHECK_GE(g.kernel_height, 1);
  TY_CHECK_GE(g.kernel_width, 1);
  TY_CHECK_GE(g.stride, 1);
  TY_CHECK_GE(g.padding, 0);
  TY_CHECK_GE(g.height + 2 * g.padding, g.kernel_height);
  TY_CHECK_GE(g.width + 2 * g.padding, g.kernel_width);
}

void CheckSizes(const ConvGeometry& g, const TensorView& image, const TensorView& grid, const TensorView& w,
                const TensorView& workspace) {
  CheckGeometry(g);
  TY_CHECK_EQ(image.size(), g.image_size());
  TY_CHECK_EQ(grid.size(), g.grid_size());
  TY_CHECK_EQ(w.size(), g.weight_size());
  TY_CHECK_GE(workspace ? workspace.bytes() : 0, ConvWorkspaceBytes(g, 1));
}

}  // namespace

void ImageToGrid(const ImageToGridArgs& args, Stream& stream) {
  CheckSizes(args.geometry, args.image, args.grid, args.w, args.workspace);
  if (args.bias) TY_CHECK_EQ(args.bias.size(), args.geometry.filters);
  TY_SELECT(stream, ImageToGrid)(args, stream);
}

void GridToImage(const GridToImageArgs& args, Stream& stream) {
  CheckSizes(args.geometry, args.image, args.grid, args.w, args.workspace);
  if (args.bias) TY_CHECK_EQ(args.bias.size(), args.geometry.channels);
  TY_SELECT(stream, GridToImage)(args, stream);
}

void ConvWeightGradient(const ConvWeightGradientArgs& args, Stream& stream) {
  CheckSizes(args.geometry, args.image, args.grid, args.dw, args.workspace);
  TY_SELECT(stream, ConvWeightGradient)(args, stream);
}

void ChannelSums(const ChannelSumsArgs& args, Stream& stream) {
  TY_CHECK_EQ(args.dy.rank(), 3);
  TY_CHECK_EQ(args.dy.dim(1), args.db.size());
  TY_CHECK_GE(args.dy.dim(2), 1);
  TY_SELECT(stream, ChannelSums)(args, stream);
}

void PixelMeanForward(const PixelMeanArgs& args, Stream& stream) {
  TY_CHECK_EQ(args.x.rank(), 3);
  TY_CHECK_GE(args.x.dim(2), 1);
  TY_CHECK_EQ(args.y.size(), args.x.dim(0) * args.x.dim(1));
  TY_SELECT(stream, PixelMeanForward)(args, stream);
}

void PixelMeanBackward(const PixelMeanBackwardArgs& args, Stream& stream) {
  TY_CHECK_EQ(args.dx.rank(), 3);
  TY_CHECK_GE(args.dx.dim(2), 1);
  TY_CHECK_EQ(args.dy.size(), args.dx.dim(0) * args.dx.dim(1));
  TY_SELECT(stream, PixelMeanBackward)(args, stream);
}

int64_t ConvWorkspaceBytes(const ConvGeometry& geometry, int threads) {
  CheckGeometry(geometry);
  const internal::ConvPanels panels(geometry);
  return static_cast<int64_t>(sizeof(float)) *
         (threads * panels.slot_floats(geometry) + panels.parts * panels.part_floats(geometry));
}

}  // namespace trainyard::kernels
