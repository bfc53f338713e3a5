// Optimizers of games: both players move at once, each against its own gradient.
//
// An update asks the oracle once, extra-Adam twice: for each call the gradients are computed at the weights as they
// are, exchanged, and applied.
//
//   for call = 0 .. calls_per_update() - 1:
//     gradients at the weights; exchange; term_sum = sum over ranks, in rank order, of OwnTerm(contributions)
//     Apply({.call = call, .update = u, .term_sum = term_sum, .ranks = K, .contributions = &contributions})
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "kernels/core/arena.h"
#include "kernels/core/stream.h"
#include "proto/spec/qoda_gan_options.h"
#include "worker/optim/game_parameter.h"

namespace trainyard::optim {

class GameOptimizer {
 public:
  virtual ~GameOptimizer() = default;

  virtual int calls_per_update() const { return 1; }
  // True if step sizes depend on what this rank has put into the mean.
  virtual bool needs_contributions() const { return false; }

  // Makes the weights as they are the beginning of the run. The tensors of state() and local_state() are zero.
  virtual void Start(kernels::Stream& stream) = 0;

  // This rank's term of the step sizes, if it needs contributions; changes nothing.
  virtual double OwnTerm(const std::vector<kernels::TensorView>& contributions, kernels::Stream& stream) const {
    return 0;
  }

  struct Call {
    int call = 0;        // 0-based, within the update
    int64_t update = 1;  // 1-based
    double term_sum = 0;
    int ranks = 1;
    const std::vector<kernels::TensorView>* contributions = nullptr;  // if needed
  };
  virtual void Apply(const Call& call, kernels::Stream& stream) = 0;

  // Instead of Apply, when the gradients of that call are useless: the weights become those before the update, whose
  // later calls are not made.
  virtual void Abandon(int call, kernels::Stream& stream) {}

  // What must be in a checkpoint taken between two updates: tensors equal on all ranks, tensors of this rank alone, and
  // a text.
  virtual const std::vector<NamedTensor>& state() const = 0;
  virtual const std::vector<NamedTensor>& local_state() const = 0;
  virtual std::string StateText() const { return ""; }
  virtual absl::Status RestoreState(const std::string& text) { return absl::OkStatus(); }

  // Step sizes that the next gradients meet, by name: eta and gamma, or lr_d and lr_g.
  virtual std::map<std::string, double> rates() const = 0;
};

// State from the arena, under "moments".
std::unique_ptr<GameOptimizer> MakeGameOptimizer(const spec::GameOptimizerOptions& options,
                                                 std::vector<GameParameter> parameters, kernels::Arena& arena);

}  // namespace trainyard::optim
