// AdamW with 8-bit moments; compare elements/s with adamw_bench. 16M parameters.
#include "benchmark/benchmark.h"
#include "kernels/optim/blockwise/adamw_int8.h"
#include "kernels/optim/blockwise/moment8.h"
#include "kernels/testing/host_tensor.h"

namespace trainyard::kernels {
namespace {

using benchmark::Counter;
using testing::HostTensor;

constexpr int64_t kCount = int64_t{1} << 24;

void BM_AdamWInt8(benchmark::State& state) {
  Stream stream(static_cast<int>(state.range(0)));
  const HostTensor param = HostTensor::Filled(DType::kF32, {kCount}, 1);
  const HostTensor grad = HostTensor::Filled(DType::kF32, {kCount}, 0.5);
  const HostTensor m(DType::kU8, {kCount}), v(DType::kU8, {kCount});
  const HostTensor m_scale(DType::kF32, {Moment8Blocks(kCount)}), v_scale(DType::kF32, {Moment8Blocks(kCount)});
  AdamWInt8Args args = {.param = param, .grad = grad, .m = m, .v = v, .m_scale = m_scale, .v_scale = v_scale};
  args.lr = 1e-4f;
  for (auto _ : state) {
    AdamWInt8(args, stream);
    ++args.step;
  }
  state.counters["bytes/s"] = Counter(static_cast<double>(kCount) * (3 * 4 + 4), Counter::kIsIterationInvariantRate);
  state.counters["elements/s"] = Counter(static_cast<double>(kCount), Counter::kIsIterationInvariantRate);
}
BENCHMARK(BM_AdamWInt8)->Arg(1)->Arg(2)->UseRealTime()->Unit(benchmark::kMillisecond)->MinTime(0.2);

}  // namespace
}  // namespace trainyard::kernels
