#include <algorithm>

#include "base/check.h"
#include "kernels/gemm/linear.h"
#include "kernels/norm/channel_norm.h"
#include "kernels/pointwise/activation.h"
#include "kernels/pointwise/elementwise.h"
#include "worker/model/gan/layer_program.h"

namespace trainyard::model {

using kernels::DType;
using kernels::Stream;
using kernels::TensorView;

TensorView LayerProgram::Planes(const TensorView& memory, int number) const {
  const Shape& shape = registers_[static_cast<size_t>(number)].shape;
  return memory.Reshape({batch_, shape.channels, shape.pixels()});
}

void LayerProgram::RunLayer(Layer& layer, const TensorView& x, const TensorView& y, bool with_bias, Stream& stream) {
  const TensorView b = HasParameters(layer) && with_bias ? bias(layer).weight : TensorView();
  switch (layer.kind) {
    case Kind::kLinear:
      return LinearForward({.x = x, .w = weight(layer).weight, .bias = b, .y = y}, stream);
    case Kind::kConv:
      return ImageToGrid({.geometry = layer.geometry,
                          .image = x,
                          .w = weight(layer).weight,
                          .bias = b,
                          .grid = y,
                          .accumulate = layer.adds,
                          .workspace = workspace_},
                         stream);
    case Kind::kConvTranspose:
      return GridToImage({.geometry = layer.geometry,
                          .grid = x,
                          .w = weight(layer).weight,
                          .bias = b,
                          .image = y,
                          .accumulate = layer.adds,
                          .workspace = workspace_},
                         stream);
    case Kind::kNorm:
      return ChannelNormForward({.kind = layer.norm,
                                 .x = Planes(x, layer.input),
                                 .w = weight(layer).weight,
                                 .b = b,
                                 .y = y,
                                 .mean = layer.mean,
                                 .inv_std = layer.inv_std},
                                stream);
    case Kind::kLeakyRelu:
      return LeakyReluForward({.x = x, .y = y, .slope = layer.slope}, stream);
    case Kind::kTanh:
      return TanhForward({.x = x, .y = y}, stream);
    case Kind::kCopy:
      return Convert({.x = x, .y = y}, stream);
    case Kind::kPixelMean:
      return PixelMeanForward({.x = Planes(x, layer.input), .y = y}, stream);
  }
}

const TensorView& LayerProgram::Forward(const TensorView& x, Stream& stream) {
  TY_CHECK_EQ(x.size(), batch_ * input_shape().size());
  at(0).value = x.Reshape({batch_, input_shape().size()});
  for (Layer& layer : layers_) {
    RunLayer(layer, at(layer.input).value, at(layer.output).value, /*with_bias=*/true, stream);
  }
  return at(output_).value;
}

void LayerProgram::WeightGradient(const Layer& layer, const TensorView& x, const TensorView& dy, bool with_bias,
                                  GradientMode mode, Stream& stream) {
  const bool accumulate = mode == GradientMode::kAccumulate;
  const TensorView& dw = weight(layer).gradient;
  const TensorView& db = bias(layer).gradient;
  if (layer.kind == Kind::kLinear) {
    LinearBackwardWeight({.dy = dy, .x = x, .dw = dw, .db = with_bias ? db : TensorView(), .accumulate = accumulate},
                         stream);
  } else {
    const bool is_transposed = layer.kind == Kind::kConvTranspose;
    ConvWeightGradient({.geometry = layer.geometry,
                        .image = is_transposed ? dy : x,
                        .grid = is_transposed ? x : dy,
                        .dw = dw,
                        .accumulate = accumulate,
                        .workspace = workspace_},
                       stream);
    if (with_bias) ChannelSums({.dy = Planes(dy, layer.output), .db = db, .accumulate = accumulate}, stream);
  }
  if (!with_bias && !accumulate) Fill({.y = db, .value = 0}, stream);
}

void LayerProgram::InputGradient(const Layer& layer, const TensorView& dy, const TensorView& dx, bool accumulate,
                                 GradientMode mode, Stream& stream) {
  const Register& output = at(layer.output);
  switch (layer.kind) {
    case Kind::kLinear:
      return LinearBackwardInput({.dy = dy, .w = weight(layer).weight, .dx = dx, .accumulate = accumulate}, stream);
    case Kind::kConv:
      return GridToImage({.geometry = layer.geometry,
                          .grid = dy,
                          .w = weight(layer).weight,
                          .image = dx,
                          .accumulate = accumulate,
                          .workspace = workspace_},
                         stream);
    case Kind::kConvTranspose:
      return ImageToGrid({.geometry = layer.geometry,
                          .image = dy,
                          .w = weight(layer).weight,
                          .grid = dx,
                          .accumulate = accumulate,
                          .workspace = workspace_},
                         stream);
    case Kind::kNorm:
      return ChannelNormBackward({.kind = layer.norm,
                                  .x = Planes(at(layer.input).value, layer.input),
                                  .w = weight(layer).weight,
                                  .mean = layer.mean,
                                  .inv_std = layer.inv_std,
                                  .dy = dy,
                                  .dx = dx,
                                  .accumulate = accumulate,
                                  .dw = mode == GradientMode::kNone ? TensorView() : weight(layer).gradient,
                                  .db = mode == GradientMode::kNone ? TensorView() : bias(layer).gradient,
                                  .accumulate_weights = mode == GradientMode::kAccumulate,
                                  .workspace = workspace_},
                                 stream);
    case Kind::kLeakyRelu:
      return LeakyReluBackward({.y = output.value, .dy = dy, .dx = dx, .slope = layer.slope, .accumulate = accumulate},
                               stream);
    case Kind::kTanh:
      return TanhBackward({.y = output.value, .dy = dy, .dx = dx, .accumulate = accumulate}, stream);
    case Kind::kCopy:
      if (accumulate) return Accumulate({.x = dy, .y = dx}, stream);
      return Convert({.x = dy, .y = dx}, stream);
    case Kind::kPixelMean:
      // The only use: one reader of its input, so there is nothing to add to.
      TY_CHECK(!accumulate);
      return PixelMeanBackward({.dy = dy, .dx = Planes(dx, layer.input)}, stream);
  }
}

void LayerProgram::Backward(const TensorView& dy, const TensorView& dx, GradientMode mode,
                            const LayerCallback* on_layer_ready, Stream& stream) {
  TY_CHECK(static_cast<bool>(gradients_));
  TY_CHECK_EQ(dy.size(), batch_ * output_shape().size());
  if (dx) TY_CHECK_EQ(dx.size(), at(0).value.size());
  at(0).gradient = dx ? dx.Reshape({batch_, input_shape().size()}) : TensorView();
  std::fill(has_gradient_.begin(), has_gradient_.end(), 0);
  Convert({.x = dy, .y = at(output_).gradient}, stream);  // in-place layers change it
  for (auto layer = layers_.rbegin(); layer != layers_.rend(); ++layer) {
    const TensorView& from = at(layer->output).gradient;
    const TensorView& to = at(layer->input).gradient;
    const bool has_weights = HasParameters(*layer);
    if (has_weights && layer->kind != Kind::kNorm && mode != GradientMode::kNone) {
      WeightGradient(*layer, at(layer->input).value, from, /*with_bias=*/true, mode, stream);
    }
    if (to) {
      const bool in_place = layer->input == layer->output;
      char& has_gradient = has_gradient_[static_cast<size_t>(layer->input)];
      InputGradient(*layer, from, to, has_gradient != 0 && !in_place, mode, stream);
      has_gradient = 1;
    }
    if (has_weights && on_layer_ready != nullptr) (*on_layer_ready)(weight(*layer).layer);
  }
}

void LayerProgram::PushForward(const TensorView& tangent, GradientMode mode, const LayerCallback* on_layer_ready,
                               Stream& stream) {
  TY_CHECK(is_piecewise_linear());
  TY_CHECK_EQ(tangent.size(), at(0).value.size());
  at(0).tangent = tangent.Reshape({batch_, input_shape().size()});
  for (Layer& layer : layers_) {
    const TensorView& x = at(layer.input).tangent;
    const TensorView& y = at(layer.output).tangent;
    TY_CHECK(static_cast<bool>(y));
    if (layer.kind == Kind::kLeakyRelu) {
      // The forward of the tangent multiplies with the same slopes as the backward of the value.
      LeakyReluBackward({.y = at(layer.output).value, .dy = x, .dx = y, .slope = layer.slope}, stream);
      continue;
    }
    RunLayer(layer, x, y, /*with_bias=*/false, stream);
    if (!HasParameters(layer)) continue;
    if (mode != GradientMode::kNone) {
      WeightGradient(layer, x, at(layer.output).gradient, /*with_bias=*/false, mode, stream);
    }
    if (on_layer_ready != nullptr) (*on_layer_ready)(weight(layer).layer);
  }
}

}  // namespace trainyard::model
