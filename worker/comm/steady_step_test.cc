// A steady step of the exchange takes no memory. Counts every allocation of the process, so it is a test of its own.
#include <atomic>
#include <cstdlib>
#include <new>

#include "gtest/gtest.h"
#include "worker/comm/testing/exchanging.h"

namespace {
std::atomic<long> allocations = 0;
}  // namespace

void* operator new(size_t bytes) {
  ++allocations;
  if (void* const memory = std::malloc(bytes)) return memory;
  std::abort();
}
void operator delete(void* memory) noexcept {
  std::free(memory);
}
void operator delete(void* memory, size_t) noexcept {
  std::free(memory);
}

namespace trainyard::comm {
namespace {

TEST(SteadyStepTest, AllocatesNothing) {
  const std::vector<std::pair<spec::CodecOptions, spec::ExchangeKind>> cases = {
      {spec::MaxminCodec{}, spec::ExchangeKind::kSra},           {spec::MaxminCodec{}, spec::ExchangeKind::kAllGather},
      {spec::MaxminCodec{}, spec::ExchangeKind::kRing},          {spec::LevelsCodec{}, spec::ExchangeKind::kSra},
      {spec::SignMeanCodec{}, spec::ExchangeKind::kSra},         {spec::IdentityCodec{}, spec::ExchangeKind::kSra},
      {spec::PowerSgdCodec{2, 0, 1.5}, spec::ExchangeKind::kSra}};
  for (const auto& [codec, kind] : cases) {
    ExchangeRun run{.model = {{{"a.weight", 64, 48}, {"a.bias", 64}}, {{"b.weight", 80, 40}}}, .ranks = 2, .steps = 14};
    run.options.communication.codec = codec;
    run.options.communication.exchange = kind;
    run.options.communication.bucket_bytes = 20'000;
    run.options.communication.error_feedback = true;
    run.options.communication.hash_check_interval_steps = 0;
    std::atomic<long> before = 0;
    run.after = [&](int rank, int64_t step, GradientExchange&, std::vector<float>&) {
      // Step 0 measures errors and fits levels, step 1 is the first with the new ones.
      if (rank == 0 && step == 3) before = allocations.load();
      if (rank == 0 && step == 12) {
        EXPECT_EQ(allocations.load() - before, 0) << spec::NameOf(codec) << static_cast<int>(kind);
      }
    };
    ExpectOk(RunExchange(run));
  }
}

}  // namespace
}  // namespace trainyard::comm
