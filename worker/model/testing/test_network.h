// A network with weights, gradients and memory of its own, for tests.
#pragma once

#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "kernels/core/dispatch.h"
#include "kernels/pointwise/elementwise.h"
#include "kernels/testing/host_tensor.h"
#include "worker/model/network.h"

namespace trainyard::model::testing {

inline std::vector<double> ToDoubles(const kernels::TensorView& tensor) {
  std::vector<double> values;
  kernels::DispatchFloat(tensor.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    for (int64_t i = 0; i < tensor.size(); ++i) values.push_back(kernels::ToFloat(tensor.as<T>()[i]));
  });
  return values;
}

struct TestNetwork {
  // Weights: the initial ones of `seed`, times 5 for matrices and with biases and norms moved, so that every part of
  // the network matters; `as_initialized` leaves them as training starts.
  TestNetwork(const ModelConfig& config, const NetworkOptions& options, uint64_t seed = 1, bool as_initialized = false,
              std::unique_ptr<linear::LinearScheme> with_scheme = linear::MakeFp32Scheme())
      : config(config), stream(options.threads), parameters(ListParameters(config)), scheme(std::move(with_scheme)) {
    const auto build = [&](kernels::Arena& memory) {
      weights = AllocateWeights(config, options.dtype, "weights", memory);
      gradients = AllocateGradients(config, memory);
      network = std::make_unique<Network>(config, options, scheme.get(), &weights, &gradients.tensors, memory);
    };
    kernels::Arena counting = kernels::Arena::CountOnly();
    build(counting);
    arena = std::make_unique<kernels::Arena>(*kernels::Arena::Reserve(counting.used_bytes()));
    build(*arena);
    network->Prepare(stream);
    for (size_t i = 0; i < parameters.size(); ++i) {
      Parameter parameter = parameters[i];
      InitializeParameter(parameter, static_cast<uint32_t>(i), seed, weights.all[i], stream);
      if (as_initialized) continue;
      if (parameter.is_matrix()) {
        Scale({.x = weights.all[i], .y = weights.all[i], .scale = 5}, stream);
        continue;
      }
      const std::vector<int64_t> shape = {parameter.size()};
      const auto noise = kernels::testing::HostTensor::Normal(options.dtype, shape, seed + i, 0.3);
      Add({.a = weights.all[i], .b = noise, .y = weights.all[i]}, stream);
    }
    FillTokens(seed);
  }

  void FillTokens(uint64_t seed) {
    const int64_t rows = network->tokens().size();
    const auto tokens = kernels::testing::RandomTokens(rows, config.vocab_size, seed + 100);
    const auto targets = kernels::testing::RandomTokens(rows, config.vocab_size, seed + 200);
    std::memcpy(network->tokens().data(), tokens.as<int32_t>(), static_cast<size_t>(rows) * 4);
    std::memcpy(network->targets().data(), targets.as<int32_t>(), static_cast<size_t>(rows) * 4);
  }

  std::vector<int32_t> Tokens() const { return Ints(network->tokens()); }
  std::vector<int32_t> Targets() const { return Ints(network->targets()); }
  static std::vector<int32_t> Ints(const kernels::TensorView& tensor) {
    const int32_t* const begin = tensor.as<int32_t>();
    return {begin, begin + tensor.size()};
  }
  std::vector<std::vector<double>> WeightValues() const {
    std::vector<std::vector<double>> values;
    for (const kernels::TensorView& tensor : weights.all) values.push_back(ToDoubles(tensor));
    return values;
  }
  double MeanLoss() const {
    double sum = 0;
    for (const double loss : ToDoubles(network->losses())) sum += loss;
    return sum / static_cast<double>(network->losses().size());
  }

  const ModelConfig config;
  kernels::Stream stream;
  const std::vector<Parameter> parameters;
  const std::unique_ptr<linear::LinearScheme> scheme;
  std::unique_ptr<kernels::Arena> arena;
  NetworkTensors weights;
  Gradients gradients;
  std::unique_ptr<Network> network;
};

}  // namespace trainyard::model::testing
