// That memory is planned to the byte, and that a step takes none beyond the plan.
#include <malloc.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <new>

#include "base/testing/status_matchers.h"
#include "gtest/gtest.h"
#include "kernels/attention/attention.h"
#include "kernels/embed/embedding.h"
#include "kernels/gemm/linear.h"
#include "kernels/norm/rms_norm.h"
#include "worker/data/loader.h"
#include "worker/train/testing/tiny_dataset.h"
#include "worker/train/trainer.h"

namespace {

std::atomic<int64_t> allocations{0};

}  // namespace

// Counts every allocation of the process that comes through C++.
// Not inlined: the compiler would complain of mixing malloc with delete.
__attribute__((noinline)) void* operator new(size_t bytes) {
  allocations.fetch_add(1);
  void* const memory = std::malloc(bytes);
  if (memory == nullptr) std::abort();
  return memory;
}
__attribute__((noinline)) void operator delete(void* memory) noexcept {
  std::free(memory);
}
__attribute__((noinline)) void operator delete(void* memory, size_t) noexcept {
  std::free(memory);
}

namespace trainyard::train {
namespace {

using kernels::DType;

// An allocation of that many bytes, as the arena rounds it.
int64_t R(int64_t bytes) {
  return (bytes + 63) / 64 * 64;
}

TrainerOptions Options(DType dtype, spec::Recompute recompute, int chunks, const spec::OptimizerOptions& optimizer) {
  TrainerOptions options;
  options.config.vocab_size = 257;
  options.config.hidden_size = 24;
  options.config.intermediate_size = 40;
  options.config.layers = 3;
  options.config.q_heads = 4;
  options.config.kv_heads = 2;
  options.config.head_dim = 6;
  options.sequence_length = 65;
  options.dtype = dtype;
  options.training.steps = 100;
  options.training.micro_batch = 8;
  options.training.recompute = recompute;
  options.training.lm_head_chunks = chunks;
  options.training.optimizer = optimizer;
  return options;
}

// The formulas of network.h, for the shape above: C 24, D 40, K 48, A 24, V 257, L 3, N 520.
kernels::MemoryPlan Formula(const TrainerOptions& options) {
  const int64_t C = 24, D = 40, K = 48, A = 24, V = 257, L = 3, N = 520, B = 8, T = 65, H = 4;
  const int64_t s = options.dtype == DType::kF32 ? 4 : 2;
  const bool recompute = options.training.recompute == spec::Recompute::kBlock;
  const bool has_master = s == 2;
  const int64_t moments = std::holds_alternative<spec::AdamWOptions>(options.training.optimizer) ? 2 : 1;
  const auto parameters = [&](int64_t bytes) {
    return 2 * R(V * C * bytes) + R(C * bytes) +
           L * (2 * R(C * bytes) + R(K * C * bytes) + R(C * A * bytes) + R(2 * D * C * bytes) + R(C * D * bytes));
  };
  kernels::MemoryPlan plan;
  plan["weights"] = parameters(s);
  if (has_master) plan["master"] = parameters(4);
  plan["moments"] = moments * parameters(4);
  plan["gradients"] = R(4 * (2 * V * C + C + L * (2 * C + K * C + C * A + 3 * D * C)));
  const int64_t block = 3 * R(N * C * s) + R(N * K * s) + R(N * A * s) + R(N * 2 * D * s) + R(N * D * s) +
                        2 * R(N * 4) + R(B * H * T * 4);
  plan["activations"] = 2 * R(N * 4) + R(N * 4) + R(T * 3 * 2 * 4)              // tokens, targets, losses, rope
                        + (L + 1) * R(N * C * s) + (recompute ? 1 : L) * block  // x, blocks
                        + R(N * C * s) + R(N * 4)                               // final norm
                        + R(N * std::max(C, A) * s) + R(N * std::max(K, D) * s) + R(N * C * s);  // gradients of these
  // 520 rows in two chunks are 512 and 8.
  const int64_t logits = R((options.training.lm_head_chunks == 1 ? 520 : 512) * V * s);
  const kernels::AttentionShape shape{B, T, H, 2, 6};
  int64_t scratch =
      std::max({kernels::AttentionForwardWorkspaceBytes(shape, options.dtype, 1),
                kernels::AttentionBackwardWorkspaceBytes(shape, options.dtype, 1),
                kernels::RmsNormBackwardWorkspaceBytes(N, C), kernels::EmbeddingBackwardWorkspaceBytes(N)});
  for (const auto& [in, out] : {std::pair{C, K}, {A, C}, {C, 2 * D}, {D, C}, {C, V}}) {
    scratch = std::max(scratch, kernels::LinearWorkspaceBytes(options.dtype, N, in, out));
  }
  // Sums of squares: f64, of every 128 elements of such short tensors.
  const auto sums = [](int64_t elements) { return 8 * ((elements + 127) / 128); };
  const int64_t norm =
      2 * sums(V * C) + sums(C) + L * (2 * sums(C) + sums(K * C) + sums(C * A) + sums(2 * D * C) + sums(C * D));
  plan["workspace"] = logits + R(scratch) + R(4) + R(norm) + 2 * R(kZScoreWindow * 4);
  return plan;
}

TEST(MemoryTest, PlanEqualsTheFormulasToTheByte) {
  spec::SgdOptions sgd;
  for (const TrainerOptions& options : {
           Options(DType::kF32, spec::Recompute::kNone, 1, spec::AdamWOptions{}),
           Options(DType::kBF16, spec::Recompute::kBlock, 2, spec::AdamWOptions{}),
           Options(DType::kF32, spec::Recompute::kBlock, 2, sgd),
       }) {
    EXPECT_EQ(Trainer::Plan(options), Formula(options));
    ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Trainer> trainer, Trainer::Create(options));
    EXPECT_EQ(trainer->memory_plan(), Formula(options));
  }
}

class SteadyStepTest : public ::testing::TestWithParam<spec::OptimizerOptions> {};

TEST_P(SteadyStepTest, AllocatesNothing) {
  testing::TinyDataset dataset;
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const int threads : {1, 3}) {
      TrainerOptions options = Options(dtype, spec::Recompute::kBlock, 2, GetParam());
      options.threads = threads;
      options.training.accumulation = 2;
      data::LoaderOptions loading;
      loading.directory = dataset.path();
      loading.sequence_length = 65;
      loading.vocab_size = 257;
      ASSERT_OK_AND_ASSIGN(data::Loader loader, data::Loader::Open(loading));
      ASSERT_OK_AND_ASSIGN(const std::unique_ptr<Trainer> trainer, Trainer::Create(options));
      trainer->Initialize();
      // Libraries set themselves up in the first step.
      for (int i = 0; i < 2; ++i) ASSERT_OK(trainer->Step(loader));
      const int64_t allocations_before = allocations.load();
      const size_t in_use_before = mallinfo2().uordblks + mallinfo2().hblkhd;
      bool all_ok = true;
      for (int i = 0; i < 20; ++i) all_ok = all_ok && trainer->Step(loader).ok();
      EXPECT_EQ(allocations.load() - allocations_before, 0) << kernels::Name(dtype).data() << " " << threads;
      EXPECT_EQ(mallinfo2().uordblks + mallinfo2().hblkhd, in_use_before);
      EXPECT_TRUE(all_ok);
    }
  }
}

template <typename Options>
spec::OptimizerOptions OfRankFive() {
  Options options;
  options.subspace.rank = 5;
  return options;
}
spec::AdamWOptions OfSmallMoments() {
  spec::AdamWOptions options;
  options.first_moment = spec::MomentType::kE4M3;
  options.second_moment = spec::MomentType::kBf16;
  return options;
}
INSTANTIATE_TEST_SUITE_P(Optimizers, SteadyStepTest,
                         ::testing::Values(spec::AdamWOptions(), OfSmallMoments(), spec::EcoOptions(),
                                           OfRankFive<spec::DctAdamWOptions>(), OfRankFive<spec::TrionOptions>()));

}  // namespace
}  // namespace trainyard::train
