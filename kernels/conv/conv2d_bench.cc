// Arguments: batch, channels, image extent, filters, kernel, stride, threads. BM_Gemm is the product of the same size
// without any unfolding: what the convolution is measured against.
#include "kernels/conv/conv2d.h"
#include "kernels/gemm/gemm.h"
#include "kernels/testing/bench.h"
#include "kernels/testing/host_tensor.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

struct ConvBench {
  explicit ConvBench(const benchmark::State& state)
      : g{.batch = state.range(0),
          .channels = state.range(1),
          .height = state.range(2),
          .width = state.range(2),
          .filters = state.range(3),
          .kernel_height = state.range(4),
          .kernel_width = state.range(4),
          .stride = state.range(5),
          .padding = (state.range(4) - 1) / 2},
        stream(static_cast<int>(state.range(6))),
        image(HostTensor::Normal(DType::kF32, {g.image_size()}, 1)),
        grid(HostTensor::Normal(DType::kF32, {g.grid_size()}, 2)),
        w(HostTensor::Normal(DType::kF32, {g.weight_size()}, 3)),
        workspace(DType::kU8, {ConvWorkspaceBytes(g, stream.threads())}) {}

  double flops() const {
    return 2.0 * static_cast<double>(g.grid_size()) * static_cast<double>(g.weight_size() / g.filters);
  }
  void SetRates(benchmark::State& state) const {
    testing::SetRates(state, 4.0 * static_cast<double>(g.image_size() + g.grid_size() + g.weight_size()), flops());
  }

  ConvGeometry g;
  Stream stream;
  HostTensor image, grid, w, workspace;
};

void BM_ImageToGrid(benchmark::State& state) {
  ConvBench b(state);
  for (auto _ : state) {
    ImageToGrid({.geometry = b.g, .image = b.image, .w = b.w, .grid = b.grid, .workspace = b.workspace}, b.stream);
  }
  b.SetRates(state);
}

void BM_GridToImage(benchmark::State& state) {
  ConvBench b(state);
  for (auto _ : state) {
    GridToImage({.geometry = b.g, .grid = b.grid, .w = b.w, .image = b.image, .workspace = b.workspace}, b.stream);
  }
  b.SetRates(state);
}

void BM_ConvWeightGradient(benchmark::State& state) {
  ConvBench b(state);
  for (auto _ : state) {
    ConvWeightGradient({.geometry = b.g, .image = b.image, .grid = b.grid, .dw = b.w, .workspace = b.workspace},
                       b.stream);
  }
  b.SetRates(state);
}

void BM_Gemm(benchmark::State& state) {
  ConvBench b(state);
  const int64_t depth = b.g.weight_size() / b.g.filters;
  const int64_t columns = b.g.grid_size() / b.g.filters;
  const HostTensor unfolded = HostTensor::Normal(DType::kF32, {depth, columns}, 4);
  const HostTensor out(DType::kF32, {b.g.filters, columns});
  for (auto _ : state) {
    Gemm({.a = b.w.view().Reshape({b.g.filters, depth}), .b = unfolded, .c = out}, b.stream);
  }
  b.SetRates(state);
}

void Shapes(benchmark::internal::Benchmark* bench) {
  for (int64_t threads : {1, 2}) {
    bench->Args({16, 128, 32, 128, 3, 1, threads});
    bench->Args({16, 128, 16, 128, 3, 1, threads});
    bench->Args({16, 128, 8, 128, 3, 1, threads});
    bench->Args({16, 128, 32, 128, 3, 2, threads});
    bench->Args({16, 128, 16, 128, 4, 2, threads});
    bench->Args({16, 3, 32, 128, 3, 1, threads});
  }
  bench->UseRealTime();
}

BENCHMARK(BM_ImageToGrid)->Apply(Shapes);
BENCHMARK(BM_GridToImage)->Apply(Shapes);
BENCHMARK(BM_ConvWeightGradient)->Apply(Shapes);
BENCHMARK(BM_Gemm)->Apply(Shapes);

}  // namespace
}  // namespace trainyard::kernels
