// Forward and backward of a network whose blocks have lost half their heads and channels, beside the dense network and
// beside a dense one of half its size: what structured pruning gains, and what ragged groups cost. Four blocks of width
// 512 with 8 query heads on 4 KV heads of 64 and an MLP of 1,536; 512 tokens; a vocabulary of 64, so that the head does
// not count.
#include <cstring>
#include <memory>

#include "benchmark/benchmark.h"
#include "kernels/testing/host_tensor.h"
#include "worker/model/testing/test_network.h"

namespace trainyard::model {
namespace {

ModelConfig Dense() {
  ModelConfig config;
  config.vocab_size = 64;
  config.hidden_size = 512;
  config.intermediate_size = 1536;
  config.layers = 4;
  config.q_heads = 8;
  config.kv_heads = 4;
  config.head_dim = 64;
  return config;
}

ModelConfig HalfDense() {
  ModelConfig config = Dense();
  config.q_heads = 4;
  config.intermediate_size = 768;
  return config;
}

ModelConfig HalfPruned() {
  ModelConfig config = Dense();
  config.blocks = {
      {4, 4, 768, {0, 0, 1, 3}}, {4, 4, 768, {0, 1, 1, 2}}, {4, 4, 768, {1, 2, 2, 3}}, {4, 4, 768, {0, 0, 3, 3}}};
  return config;
}

// The same number of heads and channels in all, unequally spread.
ModelConfig HalfPrunedUnequally() {
  ModelConfig config = Dense();
  config.blocks = {{8, 4, 1536, {}}, {0, 0, 1024, {}}, {5, 4, 512, {0, 0, 1, 2, 3}}, {3, 4, 0, {1, 1, 2}}};
  return config;
}

void BM_ForwardBackward(benchmark::State& state, const ModelConfig& config) {
  testing::TestNetwork test(config, {.batch = 2, .seq = 256}, /*seed=*/1, /*as_initialized=*/true);
  for (auto _ : state) test.network->ForwardBackward({.loss_scale = 1.0f / 512}, test.stream);
  state.counters["tokens/s"] = benchmark::Counter(512, benchmark::Counter::kIsIterationInvariantRate);
  state.counters["parameters"] = static_cast<double>(ParameterCount(config));
}
BENCHMARK_CAPTURE(BM_ForwardBackward, dense, Dense())->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(BM_ForwardBackward, half_dense, HalfDense())->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(BM_ForwardBackward, half_pruned, HalfPruned())->UseRealTime()->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(BM_ForwardBackward, half_unequally, HalfPrunedUnequally())
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace trainyard::model
