// A feed-forward net as a list of layers over numbered registers: built once, its memory planned, then run forward,
// backward, and (for the gradient penalty of a piecewise linear net) pushed forward again. What the GAN nets and the
// feature classifier are made of.
//
// Register 0 is the input. A layer reads one register and writes, overwrites (in place) or adds to another, so a
// residual block is: a shortcut that writes a register and a convolution that adds to it. Everything is f32; registers
// are (batch, channels, height, width). The same bits for any number of threads.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "kernels/conv/conv2d.h"
#include "kernels/core/arena.h"
#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"
#include "kernels/norm/channel_norm.h"

namespace trainyard::model {

struct GanParameter {
  std::string name;              // "generator.block1.deconv.weight", "discriminator.head.bias"
  std::vector<int64_t> shape;    // linear (out, in); conv (out, in, kh, kw); deconv (in, out, kh, kw); (channels)
  int layer = 0;                 // exchange layer, 0 .. layer_count - 1 in forward order
  float init_std = 0;            // weights are N(0, init_std^2); 0.02 in the image nets, sqrt(2 / in) in the MLPs
  float init_value = 0;          // where init_std is 0: 1 for norm weights, 0 for biases
  kernels::TensorView weight;    // f32; parts of the flat runs of the net, back to back in this order
  kernels::TensorView gradient;  // f32; no data if the net does not train
  int dims() const { return static_cast<int>(shape.size()); }
  int64_t size() const;
};

enum class GradientMode {
  kOverwrite,
  kAccumulate,
  kNone,  // the parameters' gradients are not touched
};

enum class GanNorm { kNone, kGroup, kBatch };  // kGroup: one group, over all channels and pixels of a sample

class LayerProgram {
 public:
  struct Shape {
    int64_t channels = 1, height = 1, width = 1;
    int64_t pixels() const { return height * width; }
    int64_t size() const { return channels * height * width; }
  };
  struct Geometry {
    int64_t kernel = 1, stride = 1, padding = 0, output_padding = 0;  // the last for ConvTranspose
  };

  // --- Building. Names get ".weight" and ".bias" and the prefix in front. `init_std` 0: sqrt(2 / inputs of an output).
  LayerProgram(std::string prefix, int64_t batch, Shape input, float init_std);
  // Each returns the register with the result: a new one, or `onto`, to which the result is added.
  int Linear(const std::string& name, int input, Shape output);
  int Conv(const std::string& name, int input, int64_t filters, Geometry geometry, int onto = -1);
  int ConvTranspose(const std::string& name, int input, int64_t channels, Geometry geometry, int onto = -1);
  int Norm(const std::string& name, int input, GanNorm kind);  // kNone: `input`
  int Copy(int input);
  int PixelMean(int input);
  void Reshape(int register_, Shape shape);          // the same values, seen so by the layers that read them
  int LeakyRelu(int input, float slope);             // into a new register: for an input that is needed as it is
  int LeakyReluInPlace(int register_, float slope);  // for a register that only the last layer wrote
  int TanhInPlace(int register_);

  struct MemoryOptions {
    bool trains = true;
    bool pushes_forward = false;
    int threads = 1;
    kernels::TensorView weights = {};  // optional
  };
  // Call once, after building: "weights" (unless given), "gradients", "activations", "workspace".
  void Allocate(const MemoryOptions& options, kernels::Arena& arena);

  // --- Running.
  int64_t batch() const { return batch_; }
  const Shape& input_shape() const { return registers_.front().shape; }
  const Shape& output_shape() const { return registers_[static_cast<size_t>(output_)].shape; }
  int layer_count() const { return exchange_layers_; }
  const std::vector<GanParameter>& parameters() const { return parameters_; }
  const kernels::TensorView& weights() const { return weights_; }
  const kernels::TensorView& gradients() const { return gradients_; }
  // No norm and no tanh: what PushForward needs.
  bool is_piecewise_linear() const;

  void Initialize(uint64_t seed, uint32_t first_tensor, kernels::Stream& stream);

  // The last register, (batch, size).
  const kernels::TensorView& Forward(const kernels::TensorView& x, kernels::Stream& stream);

  using LayerCallback = std::function<void(int layer)>;
  void Backward(const kernels::TensorView& dy, const kernels::TensorView& dx, GradientMode mode,
                const LayerCallback* on_layer_ready, kernels::Stream& stream);
  // After Forward and Backward: pushes `tangent` (of the input) through the layers without biases, with the slopes of
  // the forward, and makes the weight gradients of (tangent of a layer's input, gradient of its output). Biases: 0.
  void PushForward(const kernels::TensorView& tangent, GradientMode mode, const LayerCallback* on_layer_ready,
                   kernels::Stream& stream);

 private:
  enum class Kind { kLinear, kConv, kConvTranspose, kNorm, kLeakyRelu, kTanh, kCopy, kPixelMean };
  struct Layer {
    Kind kind;
    int input = 0, output = 0;
    bool adds = false;
    kernels::ConvGeometry geometry = {};  // convolutions
    kernels::ChannelNormKind norm = kernels::ChannelNormKind::kGroup;
    float slope = 0;
    int weight = -1;  // parameter number; the bias is the next
    kernels::TensorView mean = {}, inv_std = {};
  };
  // A register lives from its first writer to its last reader, in either direction.
  struct Register {
    Shape shape;
    int first_layer, last_layer;
    kernels::TensorView value, gradient, tangent;
  };

  int AddRegister(Shape shape);
  int AddLayer(Layer layer);
  void AddParameters(Layer& layer, const std::string& name, std::vector<int64_t> weight_shape, int64_t fan_in,
                     int64_t bias_size);
  bool HasParameters(const Layer& layer) const { return layer.weight >= 0; }
  const GanParameter& weight(const Layer& layer) const { return parameters_[static_cast<size_t>(layer.weight)]; }
  const GanParameter& bias(const Layer& layer) const { return parameters_[static_cast<size_t>(layer.weight) + 1]; }
  Register& at(int number) { return registers_[static_cast<size_t>(number)]; }

  kernels::TensorView AllocateRegister(const Shape& shape, kernels::Arena& arena) const;
  // One memory for registers that never live at the same time.
  void AllocateShared(kernels::TensorView Register::*member, kernels::Arena& arena);
  void AllocateParameters(const MemoryOptions& options, kernels::Arena& arena);

  // (batch, channels, pixels) of a register's memory.
  kernels::TensorView Planes(const kernels::TensorView& memory, int number) const;
  // The layer as a map: y (+)= layer(x); tangents have no bias and take their slopes from the values.
  void RunLayer(Layer& layer, const kernels::TensorView& x, const kernels::TensorView& y, bool with_bias,
                kernels::Stream& stream);
  void WeightGradient(const Layer& layer, const kernels::TensorView& x, const kernels::TensorView& dy, bool with_bias,
                      GradientMode mode, kernels::Stream& stream);
  void InputGradient(const Layer& layer, const kernels::TensorView& dy, const kernels::TensorView& dx, bool accumulate,
                     GradientMode mode, kernels::Stream& stream);

  const std::string prefix_;
  const int64_t batch_;
  const float init_std_;
  int output_ = 0;
  int exchange_layers_ = 0;
  std::vector<Layer> layers_;
  std::vector<Register> registers_;
  std::vector<GanParameter> parameters_;
  kernels::TensorView weights_, gradients_, workspace_;
  std::vector<char> has_gradient_;  // during a backward: whether a register's gradient has been written
};

}  // namespace trainyard::model
