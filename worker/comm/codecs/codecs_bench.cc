// What a codec costs one core, in bytes/s of f32, against a copy of the f32 (which it saves the wire most of).
// Argument: elements. At 1 Gbit/s f32 moves at 0.125 GB/s.
#include <cstring>
#include <memory>
#include <vector>

#include "kernels/codec/level_fit.h"
#include "kernels/testing/bench.h"
#include "kernels/testing/host_tensor.h"
#include "worker/comm/codecs/huffman_codec.h"
#include "worker/comm/codecs/level_codec.h"
#include "worker/comm/codecs/maxmin_codec.h"
#include "worker/comm/codecs/sign_mean_codec.h"
#include "worker/comm/codecs/top_k_codec.h"

namespace trainyard::comm {
namespace {

using kernels::testing::HostTensor;

std::unique_ptr<Codec> Maxmin(int bits) {
  return MakeMaxminCodec({.bits = bits});
}
std::unique_ptr<Codec> Maxmin2() {
  return Maxmin(2);
}
std::unique_ptr<Codec> Maxmin4() {
  return Maxmin(4);
}
std::unique_ptr<Codec> Maxmin8() {
  return Maxmin(8);
}
std::unique_ptr<Codec> Levels4() {
  return MakeLevelCodec({.levels = kernels::UniformLevels(7)});
}
std::unique_ptr<Codec> Levels8() {
  return MakeLevelCodec({.levels = kernels::UniformLevels(127)});
}
std::unique_ptr<Codec> SignMean() {
  return MakeSignMeanCodec({});
}
std::unique_ptr<Codec> TopK() {
  return MakeTopKCodec({.density = 0.01});
}
std::unique_ptr<Codec> Huffman4() {
  const std::unique_ptr<PackedCodec> plain = MakeMaxminCodec({.bits = 4});
  const HostTensor x = HostTensor::Normal(kernels::DType::kF32, {1 << 16}, 2);
  std::vector<int64_t> counts(16, 0);
  AddCodeCounts(*plain, {0, 0, 1 << 16}, {}, x.as<float>(), absl::MakeSpan(counts));
  return MakeHuffmanCodec(MakeMaxminCodec({.bits = 4}), kernels::HuffmanTable::FromCounts(counts));
}

void BM_Encode(benchmark::State& state, std::unique_ptr<Codec> (*make)()) {
  const std::unique_ptr<Codec> codec = make();
  kernels::Stream stream(1);
  const HostTensor x = HostTensor::Normal(kernels::DType::kF32, {state.range(0)}, 1);
  std::vector<char> wire(static_cast<size_t>(codec->MaxBytes(state.range(0))));
  for (auto _ : state) codec->Encode({0, 0, state.range(0)}, {}, x.as<float>(), wire.data(), stream);
  kernels::testing::SetRates(state, static_cast<double>(x.view().bytes()), 0);
}

void BM_Decode(benchmark::State& state, std::unique_ptr<Codec> (*make)()) {
  const std::unique_ptr<Codec> codec = make();
  kernels::Stream stream(1);
  const HostTensor x = HostTensor::Normal(kernels::DType::kF32, {state.range(0)}, 1);
  std::vector<char> wire(static_cast<size_t>(codec->MaxBytes(state.range(0))));
  codec->Encode({0, 0, state.range(0)}, {}, x.as<float>(), wire.data(), stream);
  for (auto _ : state) codec->Decode({0, 0, state.range(0)}, wire.data(), x.as<float>(), stream);
  kernels::testing::SetRates(state, static_cast<double>(x.view().bytes()), 0);
}

void BM_Copy(benchmark::State& state) {
  const HostTensor x = HostTensor::Normal(kernels::DType::kF32, {state.range(0)}, 1);
  const HostTensor y(kernels::DType::kF32, {state.range(0)});
  for (auto _ : state) {
    std::memcpy(y.as<float>(), x.as<float>(), static_cast<size_t>(x.view().bytes()));
    benchmark::ClobberMemory();
  }
  kernels::testing::SetRates(state, static_cast<double>(x.view().bytes()), 0);
}

constexpr int64_t kElements = 1 << 20;
BENCHMARK(BM_Copy)->Arg(kElements);
#define TY_BENCH_CODEC(name)                                \
  BENCHMARK_CAPTURE(BM_Encode, name, name)->Arg(kElements); \
  BENCHMARK_CAPTURE(BM_Decode, name, name)->Arg(kElements)
TY_BENCH_CODEC(Maxmin2);
TY_BENCH_CODEC(Maxmin4);
TY_BENCH_CODEC(Maxmin8);
TY_BENCH_CODEC(Levels4);
TY_BENCH_CODEC(Levels8);
TY_BENCH_CODEC(SignMean);
TY_BENCH_CODEC(TopK);
TY_BENCH_CODEC(Huffman4);

}  // namespace
}  // namespace trainyard::comm
