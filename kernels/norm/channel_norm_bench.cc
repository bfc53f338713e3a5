// Arguments: batch, channels, pixels, threads.
#include "kernels/norm/channel_norm.h"
#include "kernels/testing/bench.h"
#include "kernels/testing/host_tensor.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

struct NormBench {
  NormBench(const benchmark::State& state, ChannelNormKind kind)
      : shape{state.range(0), state.range(1), state.range(2)},
        stream(static_cast<int>(state.range(3))),
        x(HostTensor::Normal(DType::kF32, shape, 1)),
        y(DType::kF32, shape),
        w(HostTensor::Filled(DType::kF32, {shape[1]}, 1)),
        b(DType::kF32, {shape[1]}),
        mean(DType::kF32, {ChannelNormStatisticsCount(kind, 1, shape[0], shape[1])}),
        inv_std(mean.Copy()),
        workspace(DType::kU8, {ChannelNormBackwardWorkspaceBytes(shape[0], shape[1])}) {}
  std::vector<int64_t> shape;
  Stream stream;
  HostTensor x, y, w, b, mean, inv_std, workspace;
};

void BM_ChannelNormForward(benchmark::State& state, ChannelNormKind kind) {
  NormBench n(state, kind);
  for (auto _ : state) {
    ChannelNormForward({.kind = kind, .x = n.x, .w = n.w, .b = n.b, .y = n.y, .mean = n.mean, .inv_std = n.inv_std},
                       n.stream);
  }
  testing::SetRates(state, 2.0 * static_cast<double>(n.x.view().bytes()), 6.0 * static_cast<double>(n.x.view().size()));
}

void BM_ChannelNormBackward(benchmark::State& state, ChannelNormKind kind) {
  NormBench n(state, kind);
  for (auto _ : state) {
    ChannelNormBackward({.kind = kind,
                         .x = n.x,
                         .w = n.w,
                         .mean = n.mean,
                         .inv_std = n.inv_std,
                         .dy = n.y,
                         .dx = n.y,
                         .dw = n.w,
                         .db = n.b,
                         .workspace = n.workspace},
                        n.stream);
  }
  testing::SetRates(state, 3.0 * static_cast<double>(n.x.view().bytes()), 9.0 * static_cast<double>(n.x.view().size()));
}

void Shapes(benchmark::internal::Benchmark* bench) {
  for (int64_t threads : {1, 2}) bench->Args({16, 128, 1024, threads});
  bench->UseRealTime();
}

BENCHMARK_CAPTURE(BM_ChannelNormForward, group, ChannelNormKind::kGroup)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_ChannelNormForward, batch, ChannelNormKind::kBatch)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_ChannelNormBackward, group, ChannelNormKind::kGroup)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_ChannelNormBackward, batch, ChannelNormKind::kBatch)->Apply(Shapes);

}  // namespace
}  // namespace trainyard::kernels
