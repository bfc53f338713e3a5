// Attention at training shapes, beside one large matrix product of the same run: flop/s count the products of unmasked
// scores only (half of T x T).
#include "benchmark/benchmark.h"
#include "kernels/attention/attention.h"
#include "kernels/gemm/sgemm.h"
#include "kernels/testing/host_tensor.h"

namespace trainyard::kernels {
namespace {

using benchmark::Counter;
using testing::HostTensor;

struct Tensors {
  AttentionShape shape;
  DType dtype;
  Stream stream;
  HostTensor qkv, o, lse, dout, dqkv, workspace;

  Tensors(const benchmark::State& state, DType dtype_in)
      : shape{state.range(0), state.range(1), state.range(2), state.range(3), state.range(4)},
        dtype(dtype_in),
        stream(static_cast<int>(state.range(5))),
        qkv(HostTensor::Normal(dtype, {shape.batch, shape.seq, shape.packed_width()}, 1)),
        o(dtype, {shape.batch, shape.seq, shape.q_heads * shape.head_dim}),
        lse(DType::kF32, {shape.batch, shape.q_heads, shape.seq}),
        dout(HostTensor::Normal(dtype, {shape.batch, shape.seq, shape.q_heads * shape.head_dim}, 2)),
        dqkv(dtype, {shape.batch, shape.seq, shape.packed_width()}),
        workspace(DType::kU8, {std::max(AttentionForwardWorkspaceBytes(shape, dtype, stream.threads()),
                                        AttentionBackwardWorkspaceBytes(shape, dtype, stream.threads()))}) {}

  AttentionForwardArgs Forward() const {
    return {.shape = shape, .qkv = qkv, .o = o, .lse = lse, .workspace = workspace};
  }
  AttentionBackwardArgs Backward() const {
    return {.shape = shape, .qkv = qkv, .o = o, .lse = lse, .dout = dout, .dqkv = dqkv, .workspace = workspace};
  }
  // Of one matrix product over the unmasked scores.
  double ProductFlops() const {
    return 2.0 * static_cast<double>(shape.batch * shape.q_heads * shape.head_dim) *
           static_cast<double>(shape.seq * (shape.seq + 1) / 2);
  }
};

void SetFlops(benchmark::State& state, double flops) {
  state.counters["flop/s"] = Counter(flops, Counter::kIsIterationInvariantRate);
}

void BM_Forward(benchmark::State& state, DType dtype) {
  Tensors x(state, dtype);
  for (auto _ : state) AttentionForward(x.Forward(), x.stream);
  SetFlops(state, 2 * x.ProductFlops());
}

void BM_Backward(benchmark::State& state, DType dtype) {
  Tensors x(state, dtype);
  AttentionForward(x.Forward(), x.stream);
  for (auto _ : state) AttentionBackward(x.Backward(), x.stream);
  SetFlops(state, 5 * x.ProductFlops());
}

// B, T, Hq, Hkv, HS, threads.
void Shapes(benchmark::internal::Benchmark* bench) {
  for (int threads : {1, 2}) {
    bench->Args({4, 512, 8, 8, 64, threads});
    bench->Args({4, 512, 8, 2, 64, threads});
    bench->Args({1, 2048, 8, 4, 128, threads});
  }
  bench->UseRealTime()->Unit(benchmark::kMillisecond)->MinTime(0.2);
}
BENCHMARK_CAPTURE(BM_Forward, f32, DType::kF32)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_Forward, bf16, DType::kBF16)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_Backward, f32, DType::kF32)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_Backward, bf16, DType::kBF16)->Apply(Shapes);

void BM_LargeSgemm(benchmark::State& state) {
  const HostTensor a = HostTensor::Normal(DType::kF32, {1024, 1024}, 1);
  const HostTensor b = HostTensor::Normal(DType::kF32, {1024, 1024}, 2);
  const HostTensor c(DType::kF32, {1024, 1024});
  for (auto _ : state) {
    Sgemm({.m = 1024,
           .n = 1024,
           .k = 1024,
           .a = a.as<float>(),
           .lda = 1024,
           .b = b.as<float>(),
           .ldb = 1024,
           .c = c.as<float>(),
           .ldc = 1024});
  }
  SetFlops(state, 2.0 * 1024 * 1024 * 1024);
}
BENCHMARK(BM_LargeSgemm)->UseRealTime()->Unit(benchmark::kMillisecond)->MinTime(0.2);

// Batch 1, 9 query heads on 3, head_dim 64: a 135M model's, at cache lengths.
void BM_Decode(benchmark::State& state) {
  const AttentionShape shape{1, 1, 9, 3, 64};
  const int64_t length = state.range(0);
  Stream stream(1);
  const HostTensor q = HostTensor::Normal(DType::kF32, {1, 9 * 64}, 1);
  const HostTensor k = HostTensor::Normal(DType::kF32, {1, length, 3, 64}, 2);
  const HostTensor v = HostTensor::Normal(DType::kF32, {1, length, 3, 64}, 3);
  const HostTensor o(DType::kF32, {1, 9 * 64});
  for (auto _ : state) {
    AttentionDecode({.shape = shape, .q = q, .k_cache = k, .v_cache = v, .length = length, .o = o}, stream);
  }
  SetFlops(state, 4.0 * 9 * 64 * static_cast<double>(length));
}
BENCHMARK(BM_Decode)->Arg(128)->Arg(2048);

}  // namespace
}  // namespace trainyard::kernels
