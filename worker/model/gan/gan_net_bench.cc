// Milliseconds of the parts of a training step. Arguments: batch, threads. 128 filters (ResNet) or 64 (DCGAN), 3
// channels.
#include "base/check.h"
#include "kernels/testing/bench.h"
#include "kernels/testing/host_tensor.h"
#include "worker/model/gan/gan_net.h"

namespace trainyard::model {
namespace {

using kernels::Arena;
using kernels::DType;
using kernels::testing::HostTensor;

struct Pair {
  Pair(const benchmark::State& state, GanArchitecture architecture)
      : arena(Arena::CountOnly()), stream(static_cast<int>(state.range(1))) {
    const GanNetOptions g = {.architecture = architecture,
                             .norm = GanNorm::kGroup,
                             .batch = state.range(0),
                             .filters = architecture == GanArchitecture::kResNet32 ? 128 : 64,
                             .threads = stream.threads()};
    GanNetOptions d = g;
    d.norm = GanNorm::kNone;
    d.gradient_penalty = true;
    for (const bool real : {false, true}) {
      if (real) arena = std::move(Arena::Reserve(arena.used_bytes()).value());
      generator = std::move(GanNet::MakeGenerator(g, arena).value());
      discriminator = std::move(GanNet::MakeDiscriminator(d, arena).value());
    }
    generator->Initialize(1, stream);
    discriminator->Initialize(1, stream);
  }
  Arena arena;
  kernels::Stream stream;
  std::unique_ptr<GanNet> generator, discriminator;
};

void BM_Step(benchmark::State& state, GanArchitecture architecture) {
  Pair nets(state, architecture);
  const int64_t batch = state.range(0);
  const HostTensor z = HostTensor::Normal(DType::kF32, {batch, 128}, 1);
  const HostTensor images = HostTensor::Normal(DType::kF32, {batch, 3, 32, 32}, 2);
  const HostTensor dy = HostTensor::Filled(DType::kF32, {batch}, 1.0 / static_cast<double>(batch));
  const HostTensor dx(DType::kF32, {batch, 3, 32, 32});
  for (auto _ : state) {
    nets.discriminator->GradientPenalty({.xhat = images, .mode = GradientMode::kOverwrite}, nets.stream);
    nets.discriminator->Forward(images, nets.stream);
    nets.discriminator->Backward({.dy = dy, .mode = GradientMode::kAccumulate}, nets.stream);
    nets.discriminator->Forward(nets.generator->Forward(z, nets.stream), nets.stream);
    nets.discriminator->Backward({.dy = dy, .dx = dx, .mode = GradientMode::kAccumulate}, nets.stream);
    nets.generator->Backward({.dy = dx}, nets.stream);
  }
  state.counters["memory_MB"] = static_cast<double>(nets.arena.used_bytes()) * 1e-6;
}

void Shapes(benchmark::internal::Benchmark* bench) {
  for (int64_t threads : {1, 2}) bench->Args({16, threads});
  bench->UseRealTime()->Unit(benchmark::kMillisecond);
}

BENCHMARK_CAPTURE(BM_Step, resnet32, GanArchitecture::kResNet32)->Apply(Shapes);
BENCHMARK_CAPTURE(BM_Step, dcgan32, GanArchitecture::kDcgan32)->Apply(Shapes);

}  // namespace
}  // namespace trainyard::model
