#include "worker/train/flops.h"

#include <algorithm>
#include <vector>

#include "base/clock.h"
#include "kernels/gemm/gemm.h"

namespace trainyard::train {

double FlopsPerToken(const model::ModelConfig& config, int64_t sequence_length) {
  int64_t matrices = config.vocab_size * config.hidden_size, attention = 0;
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    const model::BlockShape block = config.block_shape(layer);
    matrices += config.hidden_size * (config.qkv_width(block) + config.attention_width(block));
    matrices += 3 * config.hidden_size * block.intermediate;
    attention += config.attention_width(block) * sequence_length;
  }
  return 6.0 * static_cast<double>(matrices) + 6.0 * static_cast<double>(attention);
}

double MeasureGemmRate(kernels::Stream& stream) {
  constexpr int64_t kExtent = 1024;
  std::vector<float> a(kExtent * kExtent, 0.5f), b(a), c(a);
  const auto view = [](std::vector<float>& values) {
    return kernels::TensorView(values.data(), kernels::DType::kF32, {kExtent, kExtent});
  };
  const auto once = [&] { Gemm({.a = view(a), .b = view(b), .c = view(c), .transpose_b = true}, stream); };
  once();
  // The best of several: what disturbs only slows down.
  double best = 1e9;
  for (int i = 0; i < 4; ++i) {
    const absl::Duration begin = RealClock()->Monotonic();
    once();
    best = std::min(best, absl::ToDoubleSeconds(RealClock()->Monotonic() - begin));
  }
  return 2.0 * kExtent * kExtent * kExtent / best;
}

}  // namespace trainyard::train
