// Runs the gradient exchange of several ranks as threads of the test.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/testing/status_matchers.h"
#include "kernels/codec/piece_math.h"
#include "kernels/core/philox.h"
#include "worker/comm/exchange_memory.h"
#include "worker/comm/gradient_exchange.h"
#include "worker/comm/piece_coder.h"
#include "worker/comm/testing/ranks.h"

namespace trainyard::comm {

struct TestTensor {
  std::string name;
  int64_t rows = 1;
  int64_t cols = 0;  // 0: a vector of `rows`
  int64_t elements() const { return cols == 0 ? rows : rows * cols; }
};
using TestModel = std::vector<std::vector<TestTensor>>;  // by layer

inline int64_t ElementsOf(const TestModel& model) {
  int64_t elements = 0;
  for (const auto& layer : model) {
    for (const TestTensor& tensor : layer) elements += tensor.elements();
  }
  return elements;
}

// A rank's gradients in one run of memory: f32 on the host unless told otherwise.
class TestGradients {
 public:
  explicit TestGradients(const TestModel& model, kernels::Device device = kernels::Device::kCpu,
                         kernels::DType dtype = kernels::DType::kF32)
      : values(static_cast<size_t>(ElementsOf(model))),
        compute(device, 1),
        is_mirrored_(device != kernels::Device::kCpu || dtype != kernels::DType::kF32),
        memory_(MemoryKindOf(compute)),
        source_(MemoryKindOf(compute)) {
    const int64_t element_bytes = static_cast<int64_t>(kernels::SizeOf(dtype));
    char* place = reinterpret_cast<char*>(values.data());
    if (is_mirrored_) {
      EXPECT_OK(memory_.Grow(ElementsOf(model) * element_bytes));
      EXPECT_OK(source_.Grow(ElementsOf(model) * element_bytes));
      place = memory_.data();
    }
    for (const auto& layer : model) {
      GradientLayer& made = layers.emplace_back();
      for (const TestTensor& tensor : layer) {
        using kernels::TensorView;
        const TensorView view = tensor.cols == 0 ? TensorView(place, dtype, {tensor.rows})
                                                 : TensorView(place, dtype, {tensor.rows, tensor.cols});
        made.tensors.push_back({view, tensor.cols == 0 ? 1 : 2, tensor.name});
        place += view.bytes();
      }
    }
  }

  // Has the compute stream write `values` into the layer's gradients.
  void Backward(int layer) {
    if (!is_mirrored_) return;
    for (const GradientTensor& tensor : layers[static_cast<size_t>(layer)].tensors) {
      const int64_t bytes = tensor.gradient.bytes();
      const int64_t offset = static_cast<char*>(tensor.gradient.data()) - memory_.data();
      char* const from = source_.data() + offset;
      const float* const wide = values.data() + offset / static_cast<int64_t>(kernels::SizeOf(tensor.gradient.dtype()));
      for (int64_t i = 0; i < tensor.gradient.size(); ++i) {
        if (tensor.gradient.dtype() == kernels::DType::kF32) {
          reinterpret_cast<float*>(from)[i] = wide[i];
        } else {
          reinterpret_cast<kernels::BFloat16*>(from)[i] = kernels::FromFloat<kernels::BFloat16>(wide[i]);
        }
      }
      CopyBytes({kernels::TensorView(from, kernels::DType::kU8, {bytes}),
                 kernels::TensorView(tensor.gradient.data(), kernels::DType::kU8, {bytes})},
                compute);
    }
  }
  // The gradients, into `values`. After the exchange's Wait.
  void Fetch() {
    if (!is_mirrored_) return;
    float* to = values.data();
    for (const GradientLayer& layer : layers) {
      for (const GradientTensor& tensor : layer.tensors) {
        WidenInto(tensor.gradient, to);
        to += tensor.gradient.size();
      }
    }
  }

  std::vector<float> values;
  std::vector<GradientLayer> layers;
  kernels::Stream compute;

 private:
  const bool is_mirrored_;
  ExchangeMemory memory_, source_;  // gradients, and what the compute stream writes there
};

// Standard normal, a function of (rank, step, element).
inline void FillGaussian(int rank, int64_t step, std::vector<float>* values) {
  const kernels::PhiloxKey key{.seed = 5,
                               .step = static_cast<uint32_t>(step),
                               .micro_step = static_cast<uint16_t>(rank),
                               .purpose = kernels::kRandomTest};
  for (size_t i = 0; i < values->size(); ++i) (*values)[i] = kernels::RandomNormal(key, i);
}

struct ExchangeRun {
  TestModel model = {};
  ExchangeOptions options = {};
  int ranks = 2;
  Transport transport = Transport::kLocal;
  int64_t first_step = 0;
  int64_t steps = 1;
  float scale = 1.0f;
  kernels::Device device = kernels::Device::kCpu;
  kernels::DType dtype = kernels::DType::kF32;
  std::function<void(int rank, int64_t step, std::vector<float>*)> fill = FillGaussian;
  // On the rank's thread, when it has its exchange, and after each step.
  std::function<void(int rank, GradientExchange&)> begin = nullptr;
  std::function<void(int rank, int64_t step, GradientExchange&, std::vector<float>& gradients)> after = nullptr;
};

struct ExchangeOutcome {
  std::vector<std::vector<float>> values;         // by rank: the gradients after the last step
  std::vector<std::vector<float>> contributions;  // by rank, of the last step
  std::vector<ExchangeStats> stats;
  std::vector<absl::Status> statuses;  // the first that is not OK
};

inline ExchangeOutcome RunExchange(const ExchangeRun& run) {
  const auto count = static_cast<size_t>(run.ranks);
  ExchangeOutcome outcome{std::vector<std::vector<float>>(count), std::vector<std::vector<float>>(count),
                          std::vector<ExchangeStats>(count), std::vector<absl::Status>(count)};
  auto communicators = MakeRanks(run.transport, run.ranks);
  RunThreads(run.ranks, [&](int rank) {
    const auto r = static_cast<size_t>(rank);
    TestGradients gradients(run.model, run.device, run.dtype);
    ExchangeOptions options = run.options;
    if (run.device != kernels::Device::kCpu) options.compute = &gradients.compute;
    auto exchange = GradientExchange::Create(options, gradients.layers, communicators[r].get());
    outcome.statuses[r] = exchange.status();
    if (!exchange.ok()) return;
    if (run.begin) run.begin(rank, **exchange);
    for (int64_t step = run.first_step; step < run.first_step + run.steps; ++step) {
      run.fill(rank, step, &gradients.values);
      (*exchange)->Begin(step, run.scale);
      for (int layer = static_cast<int>(gradients.layers.size()) - 1; layer >= 0; --layer) {
        gradients.Backward(layer);
        (*exchange)->LayerReady(layer);
      }
      outcome.statuses[r] = (*exchange)->Wait();
      if (!outcome.statuses[r].ok()) return;
      gradients.Fetch();
      if (run.after) run.after(rank, step, **exchange, gradients.values);
    }
    outcome.values[r] = gradients.values;
    for (const kernels::TensorView& view : (*exchange)->contributions()) {
      outcome.contributions[r].insert(outcome.contributions[r].end(), view.as<float>(), view.as<float>() + view.size());
    }
    outcome.stats[r] = (*exchange)->stats();
  });
  return outcome;
}

inline void ExpectOk(const ExchangeOutcome& outcome) {
  for (const absl::Status& status : outcome.statuses) EXPECT_OK(status);
}

}  // namespace trainyard::comm
