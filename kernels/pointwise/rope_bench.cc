// Arguments: tokens, head_dim, threads; 8 q heads, 4 kv heads.
#include "kernels/pointwise/rope.h"
#include "kernels/testing/bench.h"
#include "kernels/testing/host_tensor.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

void BM_RopeForward(benchmark::State& state, DType dtype) {
  Stream stream(static_cast<int>(state.range(2)));
  const int64_t tokens = state.range(0);
  const int64_t head_dim = state.range(1);
  const HostTensor qkv(dtype, {tokens, 16 * head_dim});
  const HostTensor table(DType::kF32, {tokens, head_dim / 2, 2});
  RopeTable({.table = table, .head_dim = head_dim}, stream);
  for (auto _ : state) {
    RopeForward({.qkv = qkv, .table = table, .q_heads = 8, .kv_heads = 4, .head_dim = head_dim}, stream);
  }
  const double turned = 12.0 * static_cast<double>(tokens * head_dim);
  testing::SetRates(state, 2 * turned * static_cast<double>(SizeOf(dtype)), 3 * turned);
}

void Shapes(benchmark::internal::Benchmark* bench) {
  for (int64_t threads : {1, 2}) bench->Args({4096, 64, threads})->Args({4096, 128, threads});
  bench->UseRealTime();
}

BENCHMARK_CAPTURE(BM_RopeForward, f32, DType::kF32)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_RopeForward, bf16, DType::kBF16)->Apply(Shapes);

}  // namespace
}  // namespace trainyard::kernels
