// A small problem for tests of the optimizer: f = sum h (x - a)^2 / 2 over a few named parameters, with gradients that
// are exact.
#pragma once

#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kernels/core/arena.h"
#include "kernels/core/stream.h"
#include "kernels/testing/host_tensor.h"
#include "worker/optim/elsa/elsa_optimizer.h"

namespace trainyard::optim::testing {

using kernels::DType;
using kernels::testing::HostTensor;

class Problem {
 public:
  // 13 columns: parts begin inside a byte of the whole's mask. 16 where a pattern N:M needs it.
  explicit Problem(const spec::ElsaOptions& options, int64_t cols = 13, DType dtype = DType::kF32)
      : options_(options), dtype_(dtype) {
    Add("embedding.weight", {6, cols}, {});
    Add("layers.0.qkv.weight", {7, cols}, {{"q", 0, 3}, {"k", 3, 2}, {"v", 5, 2}});
    Add("layers.0.attention_norm.weight", {cols}, {});
    Add("layers.0.down.weight", {11, cols}, {});
    const auto make = [&](kernels::Arena& arena) { return MakeElsaOptimizer(options_, parameters_, arena); };
    kernels::Arena counting = kernels::Arena::CountOnly();
    make(counting);
    arena_ = std::make_unique<kernels::Arena>(*kernels::Arena::Reserve(counting.used_bytes()));
    optimizer_ = make(*arena_);
  }

  // Steps first .. last, 1-based, of `steps`. Gradients are multiplied by 2 and so clipped by `factor` 0.5.
  void Run(int64_t first, int64_t last, int64_t steps = 100, int ranks = 1) {
    const HostTensor factor = HostTensor::Of(DType::kF32, {1}, {0.5});
    for (int64_t update = first; update <= last; ++update) {
      for (size_t i = 0; i < parameters_.size(); ++i) {
        const float* const x = Leading(i).as<float>();
        for (int64_t j = 0; j < gradients_[i].view().size(); ++j) {
          gradients_[i].as<float>()[j] = 2 * curvatures_[i].as<float>()[j] * (x[j] - targets_[i].as<float>()[j]);
        }
      }
      optimizer_->Update(
          {.update = update, .learning_rate = 0.02, .gradient_factor = factor, .steps = steps, .ranks = ranks},
          stream_);
    }
  }

  double Loss() const {
    double loss = 0;
    for (size_t i = 0; i < parameters_.size(); ++i) {
      for (int64_t j = 0; j < targets_[i].view().size(); ++j) {
        const double gap = Leading(i).as<float>()[j] - targets_[i].as<float>()[j];
        loss += curvatures_[i].as<float>()[j] * gap * gap / 2;
      }
    }
    return loss;
  }

  std::vector<uint8_t> Bytes() const {
    std::vector<uint8_t> bytes;
    for (size_t i = 0; i < parameters_.size(); ++i) {
      const auto* const data = static_cast<const uint8_t*>(Leading(i).data());
      bytes.insert(bytes.end(), data, data + Leading(i).bytes());
    }
    return bytes;
  }

  // Weights and states of another run of the same options.
  void CopyFrom(const Problem& other) {
    for (size_t i = 0; i < parameters_.size(); ++i) Copy(other.Leading(i), Leading(i));
    for (size_t i = 0; i < optimizer_->state().size(); ++i) {
      Copy(other.optimizer_->state()[i].tensor, optimizer_->state()[i].tensor);
    }
  }

  kernels::TensorView Leading(size_t i) const {
    return parameters_[i].master ? parameters_[i].master : parameters_[i].weight;
  }
  kernels::TensorView State(const std::string& name) const {
    for (const NamedTensor& tensor : optimizer_->state()) {
      if (tensor.name == name) return tensor.tensor;
    }
    return {};
  }
  const std::vector<OptimizerParameter>& parameters() const { return parameters_; }
  const HostTensor& target(size_t i) const { return targets_[i]; }
  const HostTensor& curvature(size_t i) const { return curvatures_[i]; }
  Optimizer& optimizer() { return *optimizer_; }
  kernels::Stream& stream() { return stream_; }

 private:
  void Add(const std::string& name, const std::vector<int64_t>& shape, std::vector<OptimizerPart> parts) {
    const uint64_t seed = 10 * (parameters_.size() + 1);
    const HostTensor start = HostTensor::Normal(DType::kF32, shape, seed);
    weights_.push_back(HostTensor::Of(dtype_, shape, start.ToDoubles()));
    masters_.push_back(start.Copy());
    gradients_.push_back(HostTensor(DType::kF32, shape));
    targets_.push_back(HostTensor::Normal(DType::kF32, shape, seed + 1));
    curvatures_.push_back(HostTensor::Normal(DType::kF32, shape, seed + 2));
    for (int64_t j = 0; j < curvatures_.back().view().size(); ++j) {
      float& h = curvatures_.back().as<float>()[j];
      h = 0.05f + std::abs(h);
    }
    parameters_.push_back({.name = name,
                           .weight = weights_.back(),
                           .master = dtype_ == DType::kF32 ? kernels::TensorView() : masters_.back(),
                           .gradient = gradients_.back(),
                           .decays = shape.size() == 2,
                           .parts = std::move(parts)});
  }
  static void Copy(const kernels::TensorView& from, const kernels::TensorView& to) {
    std::memcpy(to.data(), from.data(), static_cast<size_t>(from.bytes()));
  }

  const spec::ElsaOptions options_;
  const DType dtype_;
  std::vector<HostTensor> weights_, masters_, gradients_, targets_, curvatures_;
  std::vector<OptimizerParameter> parameters_;
  std::unique_ptr<kernels::Arena> arena_;
  std::unique_ptr<Optimizer> optimizer_;
  kernels::Stream stream_{1};
};

}  // namespace trainyard::optim::testing
