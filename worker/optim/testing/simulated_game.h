// K workers of a game in one thread: real optimizer, real codec kernels, no communicator. For tests of what the method
// promises on variational inequalities whose solutions are known (methods/qoda.md, section 5).
#pragma once

#include <functional>
#include <memory>
#include <random>
#include <vector>

#include "base/check.h"
#include "kernels/codec/maxmin.h"
#include "kernels/core/arena.h"
#include "worker/optim/dual_averaging.h"
#include "worker/optim/game_optimizer.h"

namespace trainyard::optim {

using kernels::TensorView;

inline TensorView ViewOf(std::vector<float>& values) {
  return TensorView(values.data(), kernels::DType::kF32, {static_cast<int64_t>(values.size())});
}

// How a worker's dual reaches the others.
struct Quantizer {
  int bits = 0;        // 0: exact
  int64_t bucket = 0;  // elements; 0: one bucket for the whole vector
  kernels::CodeRounding rounding = kernels::CodeRounding::kStochastic;
  uint64_t seed = 0;
};

// Maxmin code of `values`, and back, as a rank's codec would at that step. `wire` is scratch.
inline void Pass(const Quantizer& quantizer, int worker, int64_t step, std::vector<float>* values,
                 std::vector<uint8_t>* wire, kernels::Stream& stream) {
  if (quantizer.bits == 0) return;
  const auto count = static_cast<int64_t>(values->size());
  const int64_t length = quantizer.bucket == 0 ? count : quantizer.bucket;
  for (int64_t begin = 0; begin < count; begin += length) {
    const int64_t elements = std::min(length, count - begin);
    const kernels::MaxminFormat format = {.bits = quantizer.bits, .bucket_size = (elements + 63) / 64 * 64};
    wire->resize(static_cast<size_t>(format.WireOf(elements).bytes()));
    const TensorView view(values->data() + begin, kernels::DType::kF32, {elements});
    const TensorView bytes(wire->data(), kernels::DType::kU8, {static_cast<int64_t>(wire->size())});
    MaxminEncode({.x = view,
                  .wire = bytes,
                  .format = format,
                  .rounding = quantizer.rounding,
                  .random = {.seed = quantizer.seed,
                             .step = static_cast<uint32_t>(step),
                             .micro_step = static_cast<uint16_t>(worker << 1),
                             .purpose = kernels::kRandomCodec},
                  .first_element = begin},
                 stream);
    MaxminDecode({.wire = bytes, .y = view, .format = format}, stream);
  }
}

// worker, point, out: the oracle of one worker.
using Oracle = std::function<void(int worker, const std::vector<float>& x, std::vector<float>* v)>;

class SimulatedGame {
 public:
  SimulatedGame(const spec::QodaDaOptions& options, const std::vector<float>& start, int workers,
                const Quantizer& quantizer = {})
      : SimulatedGame(start, workers, quantizer) {
    const std::vector<GameParameter> parameters = Parameters(start.size());
    arena_ = Reserve(static_cast<int64_t>(start.size()), workers + 2);
    averaging_ = std::make_unique<DualAveraging>(options, parameters, *arena_);
    for (int k = 0; k < workers; ++k) own_.emplace_back(options, parameters, *arena_);
    averaging_->Start(stream_);
  }

  // The first `generator` coordinates are the generator's.
  SimulatedGame(const spec::GameAdamOptions& options, const std::vector<float>& start, size_t generator, int workers,
                const Quantizer& quantizer = {})
      : SimulatedGame(start, workers, quantizer) {
    arena_ = Reserve(static_cast<int64_t>(start.size()), 8);
    adam_ = MakeGameOptimizer(options, Parameters(generator), *arena_);
    adam_->Start(stream_);
  }

  // One update, which may ask the oracle twice.
  void Update(const Oracle& oracle) {
    ++update_;
    const int calls = adam_ ? adam_->calls_per_update() : 1;
    for (int call = 0; call < calls; ++call) Call(oracle, call);
  }

  const std::vector<float>& x() const { return x_; }  // X_{t+1/2}: where the next oracle call is
  // Of all points where the oracle was asked.
  std::vector<double> Average() const {
    std::vector<double> average = point_sum_;
    for (double& value : average) value /= static_cast<double>(oracle_calls_);
    return average;
  }
  int64_t oracle_calls() const { return oracle_calls_; }
  const DualAveraging& averaging() const { return *averaging_; }

 private:
  SimulatedGame(const std::vector<float>& start, int workers, const Quantizer& quantizer)
      : x_(start),
        mean_(start.size()),
        point_sum_(start.size()),
        duals_(static_cast<size_t>(workers), std::vector<float>(start.size())),
        quantizer_(quantizer),
        stream_(1) {}

  static std::unique_ptr<kernels::Arena> Reserve(int64_t elements, int tensors) {
    absl::StatusOr<kernels::Arena> arena = kernels::Arena::Reserve((elements * 4 + 256) * tensors);
    TY_CHECK_OK(arena);
    return std::make_unique<kernels::Arena>(*std::move(arena));
  }

  std::vector<GameParameter> Parameters(size_t generator) {
    std::vector<GameParameter> parameters;
    const auto add = [&](size_t begin, size_t end, Player player) {
      if (begin == end) return;
      const auto count = static_cast<int64_t>(end - begin);
      parameters.push_back({begin == 0 ? "first" : "second",
                            TensorView(x_.data() + begin, kernels::DType::kF32, {count}),
                            TensorView(mean_.data() + begin, kernels::DType::kF32, {count}), player});
    };
    add(0, generator, Player::kGenerator);
    add(generator, x_.size(), Player::kDiscriminator);
    return parameters;
  }

  void Call(const Oracle& oracle, int call) {
    const auto workers = static_cast<int>(duals_.size());
    std::fill(mean_.begin(), mean_.end(), 0.0f);
    double term = 0;
    for (int k = 0; k < workers; ++k) {
      std::vector<float>& dual = duals_[static_cast<size_t>(k)];
      oracle(k, x_, &dual);
      Pass(quantizer_, k, oracle_calls_, &dual, &wire_, stream_);
      for (size_t i = 0; i < dual.size(); ++i) mean_[i] += dual[i] / static_cast<float>(workers);
      if (averaging_) term += own_[static_cast<size_t>(k)].Term({ViewOf(dual)}, stream_);
    }
    for (size_t i = 0; i < x_.size(); ++i) point_sum_[i] += static_cast<double>(x_[i]);
    ++oracle_calls_;
    if (adam_) {
      adam_->Apply({.call = call, .update = update_}, stream_);
      return;
    }
    averaging_->Step(term, workers, stream_);
    for (int k = 0; k < workers; ++k) {
      own_[static_cast<size_t>(k)].Accept({ViewOf(duals_[static_cast<size_t>(k)])}, stream_);
    }
  }

  std::vector<float> x_, mean_;
  std::vector<double> point_sum_;
  std::vector<std::vector<float>> duals_;
  const Quantizer quantizer_;
  std::vector<uint8_t> wire_;
  kernels::Stream stream_;
  std::unique_ptr<kernels::Arena> arena_;
  std::unique_ptr<DualAveraging> averaging_;
  std::vector<WorkerDual> own_;
  std::unique_ptr<GameOptimizer> adam_;
  int64_t oracle_calls_ = 0, update_ = 0;
};

}  // namespace trainyard::optim
