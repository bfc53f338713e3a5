#include "worker/model/gan/gan_net.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "kernels/loss/gradient_penalty.h"
#include "kernels/pointwise/elementwise.h"
#include "worker/model/gan/gan_architectures.h"

namespace trainyard::model {
namespace {

using kernels::Arena;
using kernels::DType;
using kernels::Stream;
using kernels::TensorView;

// Philox tensor numbers: the nets of a job draw from one seed.
constexpr uint32_t kGeneratorTensor = 0;
constexpr uint32_t kDiscriminatorTensor = 1 << 16;

absl::Status CheckRange(const char* name, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(name, ": ", value, " not in [", low, ", ", high, "]"));
}

absl::Status Check(const GanNetOptions& options, bool is_generator) {
  const bool is_mlp = options.architecture == GanArchitecture::kMlp;
  TY_RETURN_IF_ERROR(CheckRange("batch", options.batch, 1, 1 << 20));
  TY_RETURN_IF_ERROR(CheckRange("latent_dim", options.latent_dim, 1, 1 << 16));
  TY_RETURN_IF_ERROR(CheckRange("threads", options.threads, 1, 1 << 10));
  if (is_mlp) {
    TY_RETURN_IF_ERROR(CheckRange("data_dim", options.data_dim, 1, 1 << 16));
    TY_RETURN_IF_ERROR(CheckRange("hidden", options.hidden, 1, 1 << 16));
    TY_RETURN_IF_ERROR(CheckRange("hidden_layers", options.hidden_layers, 0, 16));
  } else {
    TY_RETURN_IF_ERROR(CheckRange("filters", options.filters, 1, 1 << 12));
    TY_RETURN_IF_ERROR(CheckRange("channels", options.channels, 1, 4));
  }
  if (!(options.leaky_slope >= 0 && options.leaky_slope <= 1)) {
    return absl::InvalidArgumentError(absl::StrCat("leaky_slope: ", options.leaky_slope, " not in [0, 1]"));
  }
  const bool has_norm = options.norm != GanNorm::kNone;
  if (has_norm && is_mlp) return absl::InvalidArgumentError("norm: the MLP nets have none");
  if (has_norm && !is_generator && options.architecture == GanArchitecture::kResNet32) {
    return absl::InvalidArgumentError("norm: the ResNet-32 discriminator has none");
  }
  if (!options.gradient_penalty) return absl::OkStatus();
  if (is_generator) return absl::InvalidArgumentError("gradient_penalty: only discriminators have one");
  if (!options.trains) return absl::InvalidArgumentError("gradient_penalty: needs a net that trains");
  if (has_norm) {
    return absl::InvalidArgumentError(
        "gradient_penalty: not with a norm in the discriminator: it must be piecewise linear, and each sample's "
        "gradient its own");
  }
  return absl::OkStatus();
}

std::vector<int64_t> Extents(const LayerProgram::Shape& shape) {
  if (shape.pixels() == 1) return {shape.channels};
  return {shape.channels, shape.height, shape.width};
}

}  // namespace

GanNet::GanNet(const GanNetOptions& options, LayerProgram program, uint32_t first_tensor, Arena& arena)
    : options_(options),
      first_tensor_(first_tensor),
      program_(std::move(program)),
      input_shape_(Extents(program_.input_shape())),
      output_shape_(Extents(program_.output_shape())) {
  program_.Allocate({.trains = options.trains,
                     .pushes_forward = options.gradient_penalty,
                     .threads = options.threads,
                     .weights = options.weights},
                    arena);
  if (!options.gradient_penalty) return;
  ones_ = arena.Allocate("activations", DType::kF32, {options.batch, 1});
  input_gradient_ = arena.Allocate("activations", DType::kF32, {options.batch, program_.input_shape().size()});
  deviations_ = arena.AllocateShared("activations", DType::kF32, {options.batch});
}

absl::StatusOr<std::unique_ptr<GanNet>> GanNet::MakeGenerator(const GanNetOptions& options, Arena& arena) {
  TY_RETURN_IF_ERROR(Check(options, /*is_generator=*/true));
  return std::unique_ptr<GanNet>(new GanNet(options, GeneratorProgram(options), kGeneratorTensor, arena));
}

absl::StatusOr<std::unique_ptr<GanNet>> GanNet::MakeDiscriminator(const GanNetOptions& options, Arena& arena) {
  TY_RETURN_IF_ERROR(Check(options, /*is_generator=*/false));
  return std::unique_ptr<GanNet>(new GanNet(options, DiscriminatorProgram(options), kDiscriminatorTensor, arena));
}

void GanNet::Initialize(uint64_t seed, Stream& stream) {
  program_.Initialize(seed, first_tensor_, stream);
}

const TensorView& GanNet::Forward(const TensorView& x, Stream& stream) {
  return program_.Forward(x, stream);
}

void GanNet::Backward(const BackwardArgs& args, Stream& stream) {
  program_.Backward(args.dy, args.dx, args.mode, args.on_layer_ready, stream);
}

void GanNet::GradientPenalty(const PenaltyArgs& args, Stream& stream) {
  TY_CHECK(options_.gradient_penalty);
  Fill({.y = ones_, .value = 1}, stream);
  program_.Forward(args.xhat, stream);
  program_.Backward(ones_, input_gradient_, GradientMode::kNone, nullptr, stream);
  // g becomes lambda p, sample by sample.
  kernels::GradientPenalty({.gradient = input_gradient_,
                            .deviations = deviations_,
                            .scale = 2.0 * static_cast<double>(args.lambda) / static_cast<double>(options_.batch)},
                           stream);
  program_.PushForward(input_gradient_, args.mode, args.on_layer_ready, stream);
}

double GanNet::LastPenalty() const {
  const float* const deviations = deviations_.as<float>();
  double sum = 0;
  for (int64_t n = 0; n < options_.batch; ++n) {
    sum += static_cast<double>(deviations[n]) * static_cast<double>(deviations[n]);
  }
  return sum / static_cast<double>(options_.batch);
}

}  // namespace trainyard::model
