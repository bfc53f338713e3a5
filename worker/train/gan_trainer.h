// The state of one rank's GAN training and the step that moves it on (methods/qoda.md, 2.5 to 2.7). No files, no
// protocol: jobs/ puts those around it.
//
// Both players move at once: a call of the oracle takes real samples x and latents z and gives, at the same weights,
//
//   L_D = mean D(G(z)) - mean D(x) + lambda GP      by the discriminator's weights, z and x held
//   L_G = -mean D(G(z))                             by the generator's weights
//
// with GP = mean_i (|grad_x D(xhat_i)| - 1)^2 at xhat = a x + (1 - a) G(z), a uniform; or, with lambda 0, with D's
// weights clipped after each step. One backward of D over the generated samples serves both players: what it gives to
// its input is, with the sign turned, what enters the generator's backward. D's gradients are final before G's backward
// starts and travel meanwhile: D's layers come after G's in the exchange's forward order.
//
// An update is one call and one exchange; extra-Adam's are two. Real samples, latents and a are functions of (seed,
// call, number of the sample in the global batch), so runs with more ranks see the same samples.
//
// All memory is taken in Create; a step allocates nothing. The same bits for any number of threads, and after a save
// and restore. On a CUDA device every call here returns with the device idle, so that callers on the host may read and
// write what the trainer shows them.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/core/arena.h"
#include "kernels/core/stream.h"
#include "proto/spec/communication_options.h"
#include "proto/spec/qoda_gan_options.h"
#include "worker/comm/communicator.h"
#include "worker/comm/gradient_exchange.h"
#include "worker/comm/rank_sums.h"
#include "worker/data/images/sample_source.h"
#include "worker/model/gan/gan_net.h"
#include "worker/optim/game_optimizer.h"

namespace trainyard::train {

struct GanTrainerOptions {
  spec::QodaGanOptions gan;
  spec::CommunicationOptions communication;
  std::vector<int64_t> sample_shape;  // {channels, 32, 32} or {dim}
  int rank = 0;
  int world_size = 1;
  int threads = 1;
  kernels::Device device = kernels::Device::kCpu;
  uint64_t seed = 0;
};

struct GanStepResult {
  // Means over the global batch, of the update's last call, before the update. loss_d includes lambda GP.
  double loss_d = 0;
  double loss_g = 0;
  double gradient_penalty = 0;
  double gradient_norm = 0;  // of both players together
  int exchanges = 0;         // oracle calls of this step
  bool updated = true;       // false if the NaN policy dropped the update
};

class GanTrainer {
 public:
  // A trainer without memory, of which only the plan, names, shapes and layout may be used. InvalidArgument for nets
  // that cannot be.
  static absl::StatusOr<std::unique_ptr<GanTrainer>> CreateCounting(const GanTrainerOptions& options);
  // FailedPrecondition if the device is not there, ResourceExhausted if the memory cannot be had.
  static absl::StatusOr<std::unique_ptr<GanTrainer>> Create(const GanTrainerOptions& options);

  // Joins the ranks, after Initialize or the restore. Call before the first step if there are several. `communicator`
  // is borrowed; its calls are made by the exchange's thread during a call of the oracle, and by the caller's between.
  absl::Status Connect(comm::Communicator* communicator);

  // State of step 0 with initial weights from the seed.
  void Initialize();

  // One update. FailedPrecondition under NanPolicy::kFail, or after kMaxDroppedGanUpdates in a row under kSkip, if a
  // loss or the norm is not finite.
  absl::StatusOr<GanStepResult> Step(const data::SampleSource& source);

  int64_t step() const { return step_; }                  // updates done, dropped ones among them
  int64_t oracle_calls() const { return oracle_calls_; }  // and so exchanges
  int calls_per_update() const { return optimizer_->calls_per_update(); }

  // What a checkpoint holds: tensors equal on all ranks, tensors of this rank alone, and texts.
  const std::vector<optim::NamedTensor>& state() const { return state_; }
  const std::vector<optim::NamedTensor>& local_state() const { return local_state_; }
  std::map<std::string, std::string> StateTexts() const;
  // Call after the tensors have been written, and before Connect. `read` gives the text of a name of StateTexts.
  absl::Status RestoreState(const std::function<absl::StatusOr<std::string>(const std::string& name)>& read);

  // Flat weights of the generator: as they are, or an average. Valid as long as the trainer. kAverage only with
  // ergodic_average.
  kernels::TensorView generator_weights(spec::GeneratorWeights which) const;
  const model::GanNet& generator() const { return *generator_; }
  const model::GanNet& discriminator() const { return *discriminator_; }

  std::map<std::string, double> rates() const { return optimizer_->rates(); }
  const GanTrainerOptions& options() const { return options_; }
  const kernels::MemoryPlan& memory_plan() const { return arena_.plan(); }
  int64_t batch() const { return options_.gan.global_batch / options_.world_size; }
  kernels::Stream& stream() { return stream_; }
  // Generator first, then discriminator.
  std::vector<comm::GradientLayer> GradientLayers() const;
  comm::ExchangeOptions exchange_options() const;
  const comm::GradientExchange* exchange() const { return exchange_.get(); }  // null before Connect

 private:
  GanTrainer(const GanTrainerOptions& options, kernels::Arena arena);
  absl::Status Allocate();
  comm::ExchangeOptions ExchangeOptionsOnDevice();
  // Real samples, latents and shares of this call, by the host.
  void DrawInputs(const data::SampleSource& source);
  // Gradients of both players at the weights as they are, averaged over the ranks; the sum of the step sizes' terms.
  absl::Status AskOracle(const data::SampleSource& source, GanStepResult* result, double* term_sum);
  absl::Status CheckFinite(const GanStepResult& result);

  const GanTrainerOptions options_;
  kernels::Arena arena_;
  kernels::Stream stream_;
  std::unique_ptr<model::GanNet> generator_, discriminator_;
  std::unique_ptr<optim::GameOptimizer> optimizer_;
  kernels::TensorView real_, latents_, shares_;  // what the host gives to a call
  kernels::TensorView interpolated_, score_gradient_, sample_gradient_;
  kernels::TensorView real_scores_, generated_scores_;  // (batch, 1)
  kernels::TensorView ema_, average_;
  kernels::TensorView norm_, norm_workspace_;
  std::vector<kernels::TensorView> flat_gradients_;
  std::vector<kernels::TensorView> own_gradients_;  // what a rank without an exchange contributes
  std::vector<optim::NamedTensor> state_, local_state_;

  std::unique_ptr<comm::ExchangeState> exchange_state_;  // of several ranks
  std::unique_ptr<comm::GradientExchange> exchange_;
  std::function<void(int)> on_generator_layer_, on_discriminator_layer_;
  std::unique_ptr<comm::RankSums> rank_sums_;  // null before Connect

  int64_t step_ = 0;
  int64_t updates_ = 0;  // step_ less the dropped ones
  int64_t oracle_calls_ = 0;
  int64_t dropped_in_a_row_ = 0;
};

inline constexpr int64_t kMaxDroppedGanUpdates = 10;

// Latents z ~ N(0, I) of samples number first, first + 1, ..., (rows, latent_dim); `stream_number` separates uses.
void FillLatents(uint64_t seed, int64_t call, uint32_t stream_number, int64_t first, const kernels::TensorView& latents,
                 kernels::Stream& stream);

}  // namespace trainyard::train
