// An optimizer over a few parameters with gradients of their own, for tests: small matrices of both orientations, a
// square one and a vector.
#pragma once

#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/check.h"
#include "kernels/core/arena.h"
#include "kernels/testing/host_tensor.h"
#include "worker/optim/optimizer.h"

namespace trainyard::optim::testing {

using MakeForTest =
    std::function<std::unique_ptr<Optimizer>(std::vector<OptimizerParameter> parameters, kernels::Arena& arena)>;

class OptimizerRun {
 public:
  using HostTensor = kernels::testing::HostTensor;
  // bf16 weights have an f32 master.
  OptimizerRun(const MakeForTest& make, std::vector<std::vector<int64_t>> shapes, kernels::DType dtype)
      : shapes_(std::move(shapes)) {
    std::vector<OptimizerParameter> parameters;
    for (size_t i = 0; i < shapes_.size(); ++i) {
      leading.push_back(HostTensor::Normal(kernels::DType::kF32, shapes_[i], 100 + i));
      gradients.push_back(HostTensor(kernels::DType::kF32, shapes_[i]));
      OptimizerParameter parameter;
      parameter.name = "p" + std::to_string(i);
      parameter.gradient = gradients.back();
      parameter.decays = shapes_[i].size() == 2;
      if (dtype == kernels::DType::kF32) {
        parameter.weight = leading.back();
      } else {
        weights.push_back(HostTensor::Of(dtype, shapes_[i], leading.back().ToDoubles()));
        parameter.weight = weights.back();
        parameter.master = leading.back();
      }
      parameters.push_back(parameter);
    }
    optimizer = make(std::move(parameters), arena);
  }

  // Update number `update` with gradients that are a function of it.
  void Update(int64_t update, double learning_rate, double factor, kernels::Stream& stream) {
    for (size_t i = 0; i < shapes_.size(); ++i) {
      const HostTensor fresh = GradientOf(i, update);
      std::memcpy(gradients[i].view().data(), fresh.view().data(), static_cast<size_t>(fresh.view().bytes()));
    }
    factor_.as<float>()[0] = static_cast<float>(factor);
    optimizer->Update({.update = update, .learning_rate = learning_rate, .gradient_factor = factor_}, stream);
  }
  HostTensor GradientOf(size_t parameter, int64_t update) const {
    return HostTensor::Normal(kernels::DType::kF32, shapes_[parameter],
                              static_cast<uint64_t>(update) * 1000 + parameter, 0.1);
  }

  // Of the weights, their masters and the state.
  std::vector<uint8_t> Bytes() const {
    std::vector<uint8_t> all;
    const auto append = [&all](const kernels::TensorView& x) {
      const uint8_t* begin = static_cast<const uint8_t*>(x.data());
      all.insert(all.end(), begin, begin + x.bytes());
    };
    for (const HostTensor& tensor : leading) append(tensor);
    for (const HostTensor& tensor : weights) append(tensor);
    for (const NamedTensor& tensor : optimizer->state()) append(tensor.tensor);
    return all;
  }

  // What a checkpoint would carry over: leading weights and state. bf16 weights follow.
  void RestoreFrom(const OptimizerRun& other) {
    for (size_t i = 0; i < leading.size(); ++i) Copy(other.leading[i], leading[i]);
    for (size_t i = 0; i < weights.size(); ++i) Copy(other.weights[i], weights[i]);
    TY_CHECK_EQ(optimizer->state().size(), other.optimizer->state().size());
    for (size_t i = 0; i < optimizer->state().size(); ++i) {
      TY_CHECK(optimizer->state()[i].name == other.optimizer->state()[i].name);
      Copy(other.optimizer->state()[i].tensor, optimizer->state()[i].tensor);
    }
  }

  kernels::TensorView State(const std::string& name) const {
    for (const NamedTensor& tensor : optimizer->state()) {
      if (tensor.name == name) return tensor.tensor;
    }
    TY_CHECK(false && "no state of this name");
  }

  kernels::Arena arena = *kernels::Arena::Reserve(1 << 22);
  std::vector<HostTensor> leading, weights, gradients;
  std::unique_ptr<Optimizer> optimizer;

 private:
  static void Copy(const kernels::TensorView& from, const kernels::TensorView& to) {
    TY_CHECK_EQ(from.bytes(), to.bytes());
    std::memcpy(to.data(), from.data(), static_cast<size_t>(from.bytes()));
  }

  const std::vector<std::vector<int64_t>> shapes_;
  const HostTensor factor_ = HostTensor(kernels::DType::kF32, {1});
};

}  // namespace trainyard::optim::testing
