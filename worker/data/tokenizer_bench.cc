// Training and encoding speed on made-up text whose words follow Zipf's law, as English does: 20,000 distinct words.
#include <benchmark/benchmark.h>

#include <cmath>
#include <string>
#include <vector>

#include "base/check.h"
#include "worker/data/bpe_trainer.h"
#include "worker/data/tokenizer.h"

namespace trainyard::data {
namespace {

const std::string& Text() {
  static const std::string text = [] {
    uint32_t state = 1;
    const auto uniform = [&] {
      state = state * 1664525 + 1013904223;
      return (static_cast<double>(state >> 8) + 0.5) * 0x1p-24;
    };
    std::vector<std::string> words(20000);
    for (std::string& word : words) {
      const int length = 2 + static_cast<int>(uniform() * 9);
      for (int i = 0; i < length; ++i)
        word.push_back("etaoinshrdlucmfwypvbgkjqxz"[static_cast<int>(uniform() * uniform() * 26)]);
    }
    std::string result;
    while (result.size() < (size_t{8} << 20)) {
      const size_t rank = static_cast<size_t>(std::exp(uniform() * std::log(20000.0)));
      result += words[std::min<size_t>(rank, words.size()) - 1];
      result += uniform() < 0.1 ? ".\n" : " ";
    }
    return result;
  }();
  return text;
}

Tokenizer Train(int32_t vocab_size) {
  BpeTrainer trainer({.vocab_size = vocab_size});
  trainer.Add(Text());
  absl::StatusOr<Tokenizer> tokenizer = trainer.Train();
  TY_CHECK_OK(tokenizer);
  return std::move(tokenizer).value();
}

void BM_Train(benchmark::State& state) {
  for (auto _ : state) benchmark::DoNotOptimize(Train(static_cast<int32_t>(state.range(0))).vocab_size());
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(Text().size()));
}
BENCHMARK(BM_Train)->Arg(4096)->Unit(benchmark::kMillisecond);

void BM_Encode(benchmark::State& state) {
  const Tokenizer tokenizer = Train(4096);
  std::vector<int32_t> ids;
  for (auto _ : state) {
    ids.clear();
    Encoder(tokenizer).Encode(Text(), /*parse_added=*/false, &ids);  // a cold cache each time
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(Text().size()));
}
BENCHMARK(BM_Encode)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace trainyard::data
