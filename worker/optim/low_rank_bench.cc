// Arguments: rows, cols, rank, threads. The update of one matrix by DCT-AdamW and Trion beside AdamW's. Counters: the
// products that an update cannot do without, as FLOP/s against gemm_bench (DCT-AdamW: 2 rows cols r for the step and as
// much for the residual; Trion as well, and Newton-Schulz beside).
#include <functional>
#include <memory>

#include "kernels/testing/bench.h"
#include "kernels/testing/host_tensor.h"
#include "worker/optim/adamw_optimizer.h"
#include "worker/optim/dct_adamw_optimizer.h"
#include "worker/optim/trion_optimizer.h"

namespace trainyard::optim {
namespace {

using kernels::Arena;
using kernels::DType;
using kernels::testing::HostTensor;
using ErrorFeedback = spec::DctAdamWOptions::ErrorFeedback;
using Make = std::function<std::unique_ptr<Optimizer>(std::vector<OptimizerParameter>, Arena&)>;

void RunUpdates(benchmark::State& state, const Make& make, double products) {
  const int64_t rows = state.range(0), cols = state.range(1);
  kernels::Stream stream(static_cast<int>(state.range(3)));
  const HostTensor weight(DType::kF32, {rows, cols});
  const HostTensor gradient = HostTensor::Normal(DType::kF32, {rows, cols}, 1);
  const HostTensor factor = HostTensor::Of(DType::kF32, {1}, {1});
  OptimizerParameter parameter;
  parameter.weight = weight;
  parameter.gradient = gradient;
  Arena counting = Arena::CountOnly();
  make({parameter}, counting);
  Arena arena = *Arena::Reserve(counting.used_bytes());
  const std::unique_ptr<Optimizer> optimizer = make({parameter}, arena);
  UpdateArgs args = {.learning_rate = 1e-3, .gradient_factor = factor};
  // The gradient is overwritten by each update: with the direction, which is gradient enough for the next.
  for (auto _ : state) {
    optimizer->Update(args, stream);
    ++args.update;
  }
  const double elements = static_cast<double>(rows * cols);
  kernels::testing::SetRates(state, 0, products * 2 * elements * static_cast<double>(state.range(2)));
}

void BM_AdamW(benchmark::State& state) {
  RunUpdates(
      state,
      [](std::vector<OptimizerParameter> parameters, Arena& arena) {
        return MakeAdamWOptimizer({}, std::move(parameters), arena);
      },
      0);
}

void BM_DctAdamW(benchmark::State& state, ErrorFeedback feedback, spec::SubspaceOptions::Similarity similarity) {
  spec::DctAdamWOptions options;
  options.subspace.rank = static_cast<int32_t>(state.range(2));
  options.subspace.similarity = similarity;
  options.error_feedback = feedback;
  RunUpdates(
      state,
      [&](std::vector<OptimizerParameter> parameters, Arena& arena) {
        return MakeDctAdamWOptimizer(options, std::move(parameters), arena);
      },
      feedback == ErrorFeedback::kNone ? 1 : 2);
}

void BM_Trion(benchmark::State& state) {
  spec::TrionOptions options;
  options.subspace.rank = static_cast<int32_t>(state.range(2));
  RunUpdates(
      state,
      [&](std::vector<OptimizerParameter> parameters, Arena& arena) {
        return MakeTrionOptimizer(options, std::move(parameters), arena);
      },
      2);
}

void Shapes(benchmark::internal::Benchmark* bench) {
  for (const int64_t rank : {16, 64, 256}) bench->Args({1024, 1024, rank, 1});
  bench->Args({4096, 1024, 64, 1})->Args({1024, 4096, 64, 1})->Args({4096, 1024, 64, 2});
  bench->UseRealTime()->Unit(benchmark::kMillisecond);
}
using Similarity = spec::SubspaceOptions::Similarity;
BENCHMARK(BM_AdamW)
    ->Args({1024, 1024, 0, 1})
    ->Args({4096, 1024, 0, 1})
    ->Args({4096, 1024, 0, 2})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(BM_DctAdamW, none_fft, ErrorFeedback::kNone, Similarity::kFft)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_DctAdamW, int8_fft, ErrorFeedback::kInt8, Similarity::kFft)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_DctAdamW, int8_gemm, ErrorFeedback::kInt8, Similarity::kGemm)->Apply(Shapes);
BENCHMARK(BM_Trion)->Apply(Shapes);

}  // namespace
}  // namespace trainyard::optim
