// Generators and discriminators of GANs as an explicit list of op calls over memory planned once (layer_program.h).
//
//   ResNet-32   G: linear latent -> F x 4 x 4; 3 up-blocks; norm, ReLU, conv3x3 -> channels, tanh
//               up-block: y = deconv1x1/2(x) + conv3x3(relu(norm(deconv4x4/2(relu(norm(x))))))
//               D: y = conv1x1/2(x) + conv3x3/2(relu(conv3x3(x))); one down-block, two plain blocks; ReLU; mean over
//               pixels; linear F -> 1.   Block: y = shortcut(x) + conv3x3(relu(conv3x3(relu(x)))), down: stride 2 in
//               the second convolution, with conv1x1/2 as the shortcut. No norm.
//   DCGAN-32    G: linear latent -> 4F x 4 x 4, norm, ReLU; deconv4x4/2 -> 2F, norm, ReLU; -> F, norm, ReLU; ->
//               channels, tanh.   D: conv4x4/2 -> F, 2F, 4F, each with leaky ReLU, norm (if any) before it from the
//               second on; linear -> 1
//   MLP         G: latent -> hidden .. hidden (ReLU) -> data_dim;   D: data_dim -> hidden .. hidden (leaky ReLU) -> 1
//
// after the nets of the Q-GenX code, with biases everywhere. Images are 32 x 32, (batch, channels, 32, 32) in [-1, 1].
// Everything is f32. The same bits for any number of threads.
//
// The norms have no running statistics: batch norm always uses those of its batch, so that a net is its parameters.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/core/arena.h"
#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"
#include "worker/model/gan/layer_program.h"

namespace trainyard::model {

enum class GanArchitecture { kResNet32, kDcgan32, kMlp };

struct GanNetOptions {
  GanArchitecture architecture = GanArchitecture::kResNet32;
  GanNorm norm = GanNorm::kNone;  // a ResNet-32 discriminator and the MLPs have none
  int64_t batch = 1;              // samples of a call; fixed
  int64_t latent_dim = 128;       // generators
  int64_t filters = 128;          // F above
  int64_t channels = 3;           // 1 .. 4
  float leaky_slope = 0.2f;       // 0 .. 1; DCGAN and MLP discriminators
  int64_t data_dim = 2;           // MLP, as are the next two
  int64_t hidden = 128;
  int64_t hidden_layers = 3;  // 0 .. 16; 0: one linear layer
  bool trains = true;         // false: Forward only; no gradients, and no activation kept
  bool gradient_penalty = false;
  int threads = 1;  // of the streams it is called with, at most
  // Optional flat f32 of parameter_count() elements: the net then works on these weights instead of its own, as a net
  // that scores a moving average does, or one with another batch.
  kernels::TensorView weights = {};
};

class GanNet {
 public:
  // Memory from `arena` under "weights", "gradients", "activations", "workspace"; over a counting arena only the plan
  // and the parameters' shapes may be used. InvalidArgument for options out of range, a norm where none can be, and
  // gradient_penalty with a norm or for a generator.
  static absl::StatusOr<std::unique_ptr<GanNet>> MakeGenerator(const GanNetOptions& options, kernels::Arena& arena);
  static absl::StatusOr<std::unique_ptr<GanNet>> MakeDiscriminator(const GanNetOptions& options, kernels::Arena& arena);
  const std::vector<GanParameter>& parameters() const { return program_.parameters(); }
  int layer_count() const { return program_.layer_count(); }
  int64_t parameter_count() const { return weights().size(); }
  // All of them in one run, without gaps.
  const kernels::TensorView& weights() const { return program_.weights(); }
  const kernels::TensorView& gradients() const { return program_.gradients(); }  // no data if the net does not train

  const std::vector<int64_t>& input_shape() const { return input_shape_; }    // of one sample: {128}, {3, 32, 32}
  const std::vector<int64_t>& output_shape() const { return output_shape_; }  // {3, 32, 32}, {1}
  int64_t batch() const { return options_.batch; }
  const GanNetOptions& options() const { return options_; }

  // Initial weights (GanParameter::init_std): a function of (seed, net, parameter, element) alone.
  void Initialize(uint64_t seed, kernels::Stream& stream);

  // y = net(x). x: f32, batch samples; borrowed until the backward of this pass. Returns a view of (batch, output) that
  // the next call of any kind overwrites; Backward still leaves it.
  const kernels::TensorView& Forward(const kernels::TensorView& x, kernels::Stream& stream);

  struct BackwardArgs {
    kernels::TensorView dy;       // (batch, output): dloss / dy of the last Forward
    kernels::TensorView dx = {};  // optional; overwritten with dloss / dx
    GradientMode mode = GradientMode::kOverwrite;
    // Called when the gradients of a layer are final, from the last layer to the first; may be null.
    const std::function<void(int layer)>* on_layer_ready = nullptr;
  };
  // Once after each Forward; of a net that trains.
  void Backward(const BackwardArgs& args, kernels::Stream& stream);

  struct PenaltyArgs {
    kernels::TensorView xhat;  // (batch, input)
    float lambda = 10;
    GradientMode mode = GradientMode::kAccumulate;
    // As in Backward, but from the first layer to the last.
    const std::function<void(int layer)>* on_layer_ready = nullptr;
  };
  // GP = mean_i (|grad_x D(xhat_i)|_2 - 1)^2. Adds d(lambda GP)/dW to the gradients; LastPenalty tells GP. Needs
  // options.gradient_penalty. Overwrites what Forward kept.
  //
  // Without double backward, since D is piecewise linear (the method of docs/methods/qoda.md):
  //   delta_l = backward of sum_i D(xhat_i); g = d/dxhat; p_i = 2/B (|g_i| - 1) g_i / |g_i| (0 where g_i = 0);
  //   t_0 = p, t_l = p pushed forward through the same layers, without biases and with the same slopes of the ReLUs;
  //   dGP/dW_l = weight gradient of (input t_{l-1}, output gradient delta_l), dGP/db = 0.
  void GradientPenalty(const PenaltyArgs& args, kernels::Stream& stream);
  // Of the last GradientPenalty, without lambda; call when the stream has been synchronised.
  double LastPenalty() const;

 private:
  GanNet(const GanNetOptions& options, LayerProgram program, uint32_t first_tensor, kernels::Arena& arena);

  const GanNetOptions options_;
  const uint32_t first_tensor_;  // Philox tensor number of the first parameter
  LayerProgram program_;
  std::vector<int64_t> input_shape_, output_shape_;
  kernels::TensorView ones_, input_gradient_, deviations_;  // of the gradient penalty
};

}  // namespace trainyard::model
