// What a scheme costs beside the dense f32 layer: a forward and a backward of each in turns, in CPU time of all
// threads, so that other load matters little. Arguments: rows, in and out, threads. The time is the scheme's; share is
// the median of the part of it that is not the dense layer's.
#include <algorithm>
#include <ctime>
#include <memory>
#include <string>
#include <vector>

#include "kernels/testing/bench.h"
#include "kernels/testing/host_tensor.h"
#include "worker/linear/fp8_scheme.h"
#include "worker/linear/linear_scheme.h"
#include "worker/linear/quartet2_scheme.h"
#include "worker/linear/quartet_scheme.h"

namespace trainyard::linear {
namespace {

using kernels::DType;
using kernels::Stream;
using kernels::testing::HostTensor;

struct Layer {
  Layer(DType storage, int64_t rows, int64_t width)
      : site{"layers.0.qkv", 0, rows, width, width, storage},
        x(HostTensor::Normal(storage, {rows, width}, 1)),
        w(HostTensor::Normal(storage, {width, width}, 2, 0.02)),
        dy(HostTensor::Normal(storage, {rows, width}, 3, 1e-3)),
        y(storage, {rows, width}),
        dx(storage, {rows, width}),
        dw(DType::kF32, {width, width}) {}

  // Seconds of a forward and a backward.
  double Run(const LinearScheme& scheme, const HostTensor& workspace, int64_t step, Stream& stream) const {
    const LinearCall call{site, {.seed = 1, .step = step}};
    const std::clock_t begin = std::clock();
    scheme.Forward(call, {.x = x, .w = w, .y = y, .workspace = workspace}, stream);
    scheme.Backward(call, {.dy = dy, .x = x, .w = w, .dx = dx, .dw = dw, .workspace = workspace}, stream);
    return static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
  }

  const LinearSite site;
  const HostTensor x, w, dy, y, dx, dw;
};

void BM_Layer(benchmark::State& state, DType storage, std::unique_ptr<LinearScheme> (*make)()) {
  Stream stream(static_cast<int>(state.range(2)));
  const Layer layer(storage, state.range(0), state.range(1));
  const std::unique_ptr<LinearScheme> scheme = make();
  const std::unique_ptr<LinearScheme> dense = MakeFp32Scheme();
  const HostTensor workspace(DType::kU8, {scheme->WorkspaceBytes(layer.site)});
  const HostTensor dense_workspace(DType::kU8, {dense->WorkspaceBytes(layer.site)});
  std::vector<double> shares;
  int64_t step = 0;
  for (auto _ : state) {
    const double dense_seconds = layer.Run(*dense, dense_workspace, ++step, stream);
    const double seconds = layer.Run(*scheme, workspace, step, stream);
    state.SetIterationTime(seconds);
    shares.push_back(1 - dense_seconds / seconds);
  }
  std::sort(shares.begin(), shares.end());
  state.counters["share"] = shares[shares.size() / 2];
}

using Quartet = spec::LinearQuartet;
using Quartet2 = spec::LinearQuartet2;
using Made = std::unique_ptr<LinearScheme>;

Made Fp8() {
  return MakeFp8Scheme({});
}
Made QuartetNearest() {
  return MakeQuartetScheme({});
}
Made QuartetStochastic() {
  return MakeQuartetScheme({.backward_rounding = Quartet::Rounding::kStochastic});
}
Made MsEden() {
  return MakeQuartet2Scheme({});
}
Made Nvidia() {
  return MakeQuartet2Scheme({.recipe = Quartet2::Recipe::kNvidia, .four_over_six = false});
}
Made TetraJet() {
  return MakeQuartet2Scheme({.recipe = Quartet2::Recipe::kTetraJetV2, .four_over_six = false});
}

void Sizes(benchmark::internal::Benchmark* bench) {
  for (int64_t threads : {1, 2}) bench->Args({2048, 1024, threads});
  bench->UseManualTime()->MinTime(1);
}

BENCHMARK_CAPTURE(BM_Layer, fp8, DType::kF32, Fp8)->Apply(Sizes);
BENCHMARK_CAPTURE(BM_Layer, quartet, DType::kF32, QuartetNearest)->Apply(Sizes);
BENCHMARK_CAPTURE(BM_Layer, quartet_stochastic, DType::kF32, QuartetStochastic)->Apply(Sizes);
BENCHMARK_CAPTURE(BM_Layer, quartet2, DType::kF32, MsEden)->Apply(Sizes);
BENCHMARK_CAPTURE(BM_Layer, nvidia, DType::kF32, Nvidia)->Apply(Sizes);
BENCHMARK_CAPTURE(BM_Layer, tetrajet_v2, DType::kF32, TetraJet)->Apply(Sizes);
BENCHMARK_CAPTURE(BM_Layer, bf16_quartet2, DType::kBF16, MsEden)->Apply(Sizes);

}  // namespace
}  // namespace trainyard::linear
