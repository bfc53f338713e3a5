// Argument: elements, of maxmin codes with 4 bits. bytes/s counts the f32 the codes stand for.
#include <vector>

#include "kernels/codec/bit_packing.h"
#include "kernels/codec/huffman.h"
#include "kernels/codec/maxmin.h"
#include "kernels/testing/bench.h"
#include "kernels/testing/host_tensor.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

void BM_Huffman(benchmark::State& state, bool encodes) {
  Stream stream(1);
  const int64_t n = state.range(0);
  const MaxminFormat format;
  const HostTensor x = HostTensor::Normal(DType::kF32, {n}, 1);
  const HostTensor wire(DType::kU8, {format.WireOf(n).bytes()});
  MaxminEncode({.x = x, .wire = wire, .format = format}, stream);
  std::vector<uint8_t> codes(static_cast<size_t>(n));
  UnpackCodes(wire.as<uint8_t>() + format.WireOf(n).codes_offset(), n, format.bits, codes.data());
  std::vector<int64_t> counts(16, 0);
  for (const uint8_t code : codes) ++counts[code];
  const HuffmanTable table = HuffmanTable::FromCounts(counts);
  std::vector<char> out(static_cast<size_t>(table.MaxBytes(n)));
  const int64_t bytes = table.Encode(codes.data(), n, out.data());
  for (auto _ : state) {
    if (encodes) {
      benchmark::DoNotOptimize(table.Encode(codes.data(), n, out.data()));
    } else {
      benchmark::DoNotOptimize(table.Decode(out.data(), bytes, n, codes.data()));
    }
  }
  testing::SetRates(state, static_cast<double>(x.view().bytes()), 0);
}
BENCHMARK_CAPTURE(BM_Huffman, encode, true)->Arg(1 << 20);
BENCHMARK_CAPTURE(BM_Huffman, decode, false)->Arg(1 << 20);

}  // namespace
}  // namespace trainyard::kernels
