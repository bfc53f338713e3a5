#include "worker/model/gan/layer_program.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "kernels/core/philox.h"

namespace trainyard::model {

using kernels::Arena;
using kernels::DType;
using kernels::TensorView;

int64_t GanParameter::size() const {
  int64_t product = 1;
  for (int64_t extent : shape) product *= extent;
  return product;
}

LayerProgram::LayerProgram(std::string prefix, int64_t batch, Shape input, float init_std)
    : prefix_(std::move(prefix)), batch_(batch), init_std_(init_std) {
  TY_CHECK_GE(batch, 1);
  registers_.push_back({input, -1, -1, {}, {}, {}});
}

int LayerProgram::AddRegister(Shape shape) {
  const int next_layer = static_cast<int>(layers_.size());
  registers_.push_back({shape, next_layer, next_layer, {}, {}, {}});
  return static_cast<int>(registers_.size()) - 1;
}

int LayerProgram::AddLayer(Layer layer) {
  const int number = static_cast<int>(layers_.size());
  at(layer.input).last_layer = number;
  at(layer.output).last_layer = std::max(at(layer.output).last_layer, number);
  output_ = layer.output;
  layers_.push_back(layer);
  return layer.output;
}

void LayerProgram::AddParameters(Layer& layer, const std::string& name, std::vector<int64_t> weight_shape,
                                 int64_t fan_in, int64_t bias_size) {
  layer.weight = static_cast<int>(parameters_.size());
  GanParameter weight;
  weight.name = prefix_ + "." + name + ".weight";
  weight.shape = std::move(weight_shape);
  weight.layer = exchange_layers_;
  if (layer.kind == Kind::kNorm) {
    weight.init_value = 1;
  } else {
    weight.init_std = init_std_ > 0 ? init_std_ : std::sqrt(2.0f / static_cast<float>(fan_in));
  }
  GanParameter bias;
  bias.name = prefix_ + "." + name + ".bias";
  bias.shape = {bias_size};
  bias.layer = exchange_layers_++;
  parameters_.push_back(std::move(weight));
  parameters_.push_back(std::move(bias));
}

int LayerProgram::Linear(const std::string& name, int input, Shape output) {
  Layer layer{.kind = Kind::kLinear, .input = input, .output = AddRegister(output)};
  const int64_t in = at(input).shape.size();
  AddParameters(layer, name, {output.size(), in}, in, output.size());
  return AddLayer(layer);
}

int LayerProgram::Conv(const std::string& name, int input, int64_t filters, Geometry geometry, int onto) {
  const Shape from = at(input).shape;
  Layer layer{.kind = Kind::kConv, .input = input, .adds = onto >= 0};
  layer.geometry = {.batch = batch_,
                    .channels = from.channels,
                    .height = from.height,
                    .width = from.width,
                    .filters = filters,
                    .kernel_height = geometry.kernel,
                    .kernel_width = geometry.kernel,
                    .stride = geometry.stride,
                    .padding = geometry.padding};
  const Shape to = {filters, layer.geometry.grid_height(), layer.geometry.grid_width()};
  layer.output = onto >= 0 ? onto : AddRegister(to);
  TY_CHECK_EQ(at(layer.output).shape.size(), to.size());
  const int64_t taps = geometry.kernel * geometry.kernel;
  AddParameters(layer, name, {filters, from.channels, geometry.kernel, geometry.kernel}, from.channels * taps, filters);
  return AddLayer(layer);
}

int LayerProgram::ConvTranspose(const std::string& name, int input, int64_t channels, Geometry geometry, int onto) {
  const Shape from = at(input).shape;
  const auto extent = [&](int64_t grid) {
    return (grid - 1) * geometry.stride - 2 * geometry.padding + geometry.kernel + geometry.output_padding;
  };
  const Shape to = {channels, extent(from.height), extent(from.width)};
  Layer layer{.kind = Kind::kConvTranspose, .input = input, .adds = onto >= 0};
  layer.geometry = {.batch = batch_,
                    .channels = channels,
                    .height = to.height,
                    .width = to.width,
                    .filters = from.channels,
                    .kernel_height = geometry.kernel,
                    .kernel_width = geometry.kernel,
                    .stride = geometry.stride,
                    .padding = geometry.padding};
  TY_CHECK_EQ(layer.geometry.grid_height(), from.height);
  layer.output = onto >= 0 ? onto : AddRegister(to);
  TY_CHECK_EQ(at(layer.output).shape.size(), to.size());
  // Each pixel meets (kernel / stride)^2 of the taps.
  const int64_t taps = std::max<int64_t>(1, geometry.kernel * geometry.kernel / (geometry.stride * geometry.stride));
  AddParameters(layer, name, {from.channels, channels, geometry.kernel, geometry.kernel}, from.channels * taps,
                channels);
  return AddLayer(layer);
}

int LayerProgram::Norm(const std::string& name, int input, GanNorm kind) {
  if (kind == GanNorm::kNone) return input;
  TY_CHECK_NE(input, 0);  // its weights' gradients are made with that of its input
  const Shape shape = at(input).shape;
  Layer layer{.kind = Kind::kNorm, .input = input, .output = AddRegister(shape)};
  layer.norm = kind == GanNorm::kGroup ? kernels::ChannelNormKind::kGroup : kernels::ChannelNormKind::kBatch;
  AddParameters(layer, name, {shape.channels}, 1, shape.channels);
  return AddLayer(layer);
}

int LayerProgram::Copy(int input) {
  return AddLayer({.kind = Kind::kCopy, .input = input, .output = AddRegister(at(input).shape)});
}

int LayerProgram::PixelMean(int input) {
  const Shape shape = {at(input).shape.channels, 1, 1};
  return AddLayer({.kind = Kind::kPixelMean, .input = input, .output = AddRegister(shape)});
}

int LayerProgram::LeakyRelu(int input, float slope) {
  const int output = AddRegister(at(input).shape);
  return AddLayer({.kind = Kind::kLeakyRelu, .input = input, .output = output, .slope = slope});
}

int LayerProgram::LeakyReluInPlace(int register_, float slope) {
  TY_CHECK_EQ(at(register_).last_layer, static_cast<int>(layers_.size()) - 1);
  return AddLayer({.kind = Kind::kLeakyRelu, .input = register_, .output = register_, .slope = slope});
}

int LayerProgram::TanhInPlace(int register_) {
  TY_CHECK_EQ(at(register_).last_layer, static_cast<int>(layers_.size()) - 1);
  return AddLayer({.kind = Kind::kTanh, .input = register_, .output = register_});
}

void LayerProgram::Reshape(int register_, Shape shape) {
  TY_CHECK_EQ(at(register_).shape.size(), shape.size());
  at(register_).shape = shape;
}

bool LayerProgram::is_piecewise_linear() const {
  return std::none_of(layers_.begin(), layers_.end(),
                      [](const Layer& layer) { return layer.kind == Kind::kNorm || layer.kind == Kind::kTanh; });
}

TensorView LayerProgram::AllocateRegister(const Shape& shape, Arena& arena) const {
  return arena.Allocate("activations", DType::kF32, {batch_, shape.size()});
}

void LayerProgram::AllocateShared(TensorView Register::*member, Arena& arena) {
  struct Slot {
    int64_t elements;
    std::vector<const Register*> tenants;
  };
  std::vector<Slot> slots;
  std::vector<size_t> slot_of(registers_.size());
  for (size_t r = 1; r < registers_.size(); ++r) {
    const Register& next = registers_[r];
    const auto is_free = [&](const Slot& slot) {
      return std::all_of(slot.tenants.begin(), slot.tenants.end(), [&](const Register* other) {
        return other->last_layer < next.first_layer || next.last_layer < other->first_layer;
      });
    };
    size_t best = slots.size();  // the free slot that has to grow least, and of those the smallest
    for (size_t s = 0; s < slots.size(); ++s) {
      if (!is_free(slots[s])) continue;
      const auto cost = [&](size_t i) {
        return std::make_pair(std::max<int64_t>(next.shape.size() - slots[i].elements, 0), slots[i].elements);
      };
      if (best == slots.size() || cost(s) < cost(best)) best = s;
    }
    if (best == slots.size()) slots.push_back({0, {}});
    slots[best].elements = std::max(slots[best].elements, next.shape.size());
    slots[best].tenants.push_back(&next);
    slot_of[r] = best;
  }
  std::vector<TensorView> memory;
  for (const Slot& slot : slots) memory.push_back(AllocateRegister({slot.elements, 1, 1}, arena));
  for (size_t r = 1; r < registers_.size(); ++r) {
    registers_[r].*member = TensorView(memory[slot_of[r]].data(), DType::kF32, {batch_, registers_[r].shape.size()});
  }
}

void LayerProgram::AllocateParameters(const MemoryOptions& options, Arena& arena) {
  int64_t count = 0;
  for (const GanParameter& parameter : parameters_) count += parameter.size();
  weights_ = options.weights ? options.weights : arena.Allocate("weights", DType::kF32, {count});
  TY_CHECK_EQ(weights_.size(), count);
  if (options.trains) gradients_ = arena.Allocate("gradients", DType::kF32, {count});
  int64_t offset = 0;
  for (GanParameter& parameter : parameters_) {
    const auto view = [&](const TensorView& flat) {
      float* data = flat.as<float>() + offset;
      const std::vector<int64_t>& s = parameter.shape;
      if (s.size() == 1) return TensorView(data, DType::kF32, {s[0]});
      if (s.size() == 2) return TensorView(data, DType::kF32, {s[0], s[1]});
      return TensorView(data, DType::kF32, {s[0], s[1], s[2], s[3]});
    };
    parameter.weight = view(weights_);
    if (options.trains) parameter.gradient = view(gradients_);
    offset += parameter.size();
  }
}

void LayerProgram::Allocate(const MemoryOptions& options, Arena& arena) {
  at(output_).last_layer = static_cast<int>(layers_.size());  // read by the caller
  AllocateParameters(options, arena);
  if (options.trains) {
    for (size_t r = 1; r < registers_.size(); ++r) registers_[r].value = AllocateRegister(registers_[r].shape, arena);
    if (options.pushes_forward) {
      for (size_t r = 1; r < registers_.size(); ++r) {
        registers_[r].gradient = AllocateRegister(registers_[r].shape, arena);
      }
      AllocateShared(&Register::tangent, arena);
    } else {
      AllocateShared(&Register::gradient, arena);
    }
  } else {
    AllocateShared(&Register::value, arena);
  }
  has_gradient_.resize(registers_.size());
  int64_t workspace_bytes = 1;
  for (Layer& layer : layers_) {
    const int64_t channels = at(layer.input).shape.channels;
    if (layer.kind == Kind::kConv || layer.kind == Kind::kConvTranspose) {
      workspace_bytes = std::max(workspace_bytes, kernels::ConvWorkspaceBytes(layer.geometry, options.threads));
    } else if (layer.kind == Kind::kNorm) {
      const int64_t sets = kernels::ChannelNormStatisticsCount(layer.norm, 1, batch_, channels);
      layer.mean = arena.Allocate("activations", DType::kF32, {sets});
      layer.inv_std = arena.Allocate("activations", DType::kF32, {sets});
      workspace_bytes = std::max(workspace_bytes, kernels::ChannelNormBackwardWorkspaceBytes(batch_, channels));
    }
  }
  workspace_ = arena.Allocate("workspace", DType::kU8, {workspace_bytes});
}

void LayerProgram::Initialize(uint64_t seed, uint32_t first_tensor, kernels::Stream& stream) {
  for (size_t p = 0; p < parameters_.size(); ++p) {
    const GanParameter& parameter = parameters_[p];
    const kernels::PhiloxKey key = {
        .seed = seed, .purpose = kernels::kRandomInit, .tensor = first_tensor + static_cast<uint32_t>(p)};
    float* weight = parameter.weight.as<float>();
    stream.pool().ParallelFor(parameter.size(), 4096, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        weight[i] = parameter.init_std > 0 ? parameter.init_std * kernels::RandomNormal(key, static_cast<uint64_t>(i))
                                           : parameter.init_value;
      }
    });
  }
}

}  // namespace trainyard::model
