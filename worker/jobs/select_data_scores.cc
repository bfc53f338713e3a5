// The stages of select_data that end in scores.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "kernels/tangent/sequence_embedding.h"
#include "worker/data/permutation.h"
#include "worker/data/sample_loader.h"
#include "worker/influence/kernel_regression.h"
#include "worker/jobs/select_data_internal.h"
#include "worker/train/schedule.h"

namespace trainyard::jobs::internal {
namespace {

// Landmarks that are left out of a second fit, to judge it by.
constexpr double kHeldOut = 0.05;
constexpr int64_t kFewestForHeldOut = 20;

// The warm-up's rows: chosen samples of the pool in epochs, all with the same weight.
class WarmupRows final : public data::BatchSource {
 public:
  WarmupRows(std::vector<Sample> samples, int64_t length, uint64_t seed)
      : samples_(std::move(samples)), length_(length), seed_(seed) {}

  absl::Status NextBatch(const data::BatchViews& batch) override {
    const auto count = static_cast<int64_t>(samples_.size());
    for (int64_t row = 0; row < batch.tokens.size() / length_; ++row) {
      const data::Permutation order(count, seed_, static_cast<uint32_t>(position_.epoch));
      const Sample& sample = samples_[static_cast<size_t>(order(position_.next_sample))];
      const int64_t labels = std::min(static_cast<int64_t>(sample.tokens.size()), length_ + 1) - sample.label_begin;
      data::WriteSampleRow(sample.tokens, sample.label_begin,
                           static_cast<double>(length_) / static_cast<double>(labels),
                           {.tokens = batch.tokens.as<int32_t>() + row * length_,
                            .targets = batch.targets.as<int32_t>() + row * length_,
                            .weights = batch.weights.as<float>() + row * length_,
                            .length = length_});
      if (++position_.next_sample == count) position_ = {position_.epoch + 1, 0};
    }
    return absl::OkStatus();
  }
  absl::StatusOr<int64_t> ValidationBatch(int64_t /*first*/, const data::BatchViews& /*batch*/) const override {
    return 0;
  }
  bool is_weighted() const override { return true; }
  data::LoaderPosition position() const override { return position_; }
  absl::Status Restore(const data::LoaderPosition& position) override {
    position_ = position;
    return absl::OkStatus();
  }
  int64_t validation_rows() const override { return 0; }
  int32_t end_of_text_id() const override { return -1; }
  std::string Fingerprint() const override { return ""; }

 private:
  const std::vector<Sample> samples_;
  const int64_t length_;
  const uint64_t seed_;
  data::LoaderPosition position_;
};

}  // namespace

absl::Status SelectDataJob::WarmUp(UnitResult* unit) {
  if (!warms_up()) {
    return select_.method == SelectionMethod::kLess ? LessScores(1) : absl::OkStatus();
  }
  TY_RETURN_IF_ERROR(InitializeTrainer());  // what an attempt that was broken off has left
  std::vector<Sample> samples;
  for (const int64_t i : warmup_samples_) {
    TY_ASSIGN_OR_RETURN(Sample sample, pool_->At(i));
    samples.push_back(std::move(sample));
  }
  WarmupRows rows(std::move(samples), select_.sequence_length, options_.seed.value_or(0));
  const int64_t steps = trainer_->options().training.steps;
  // LESS takes its scores at the end of each epoch, weighted by the epoch's learning rates.
  const int64_t epochs = std::min<int64_t>(select_.warmup.epochs, steps);
  double epoch_rate = 0, all_rates = 0;
  for (int64_t step = 0; step < steps; ++step)
    all_rates += train::RateMultiplier(trainer_->options().training.schedule, step, steps);
  std::fill(scores_.begin(), scores_.end(), 0.0);
  absl::Status status;
  for (int64_t step = 0; step < steps && status.ok(); ++step) {
    status = StopIfAsked();
    if (!status.ok()) break;
    const absl::StatusOr<train::StepResult> result = trainer_->Step(rows);
    status = result.status();
    if (!status.ok()) break;
    unit->metrics["warmup_loss"] = result->loss;
    epoch_rate += result->learning_rate / select_.warmup.learning_rate;
    const bool ends_epoch = (step + 1) * epochs / steps != step * epochs / steps;
    if (select_.method == SelectionMethod::kLess && ends_epoch) {
      status = LessScores(epoch_rate / all_rates);
      epoch_rate = 0;
    }
  }
  // The state is again as before the unit.
  if (!status.ok()) TY_RETURN_IF_ERROR(InitializeTrainer());
  return status;
}

influence::OptimizerState StateOf(const train::Trainer& trainer) {
  influence::OptimizerState state;
  const spec::AdamWOptions& adam = std::get<spec::AdamWOptions>(trainer.options().training.optimizer);
  state.adam = {.beta1 = adam.beta1,
                .beta2 = adam.beta2,
                .epsilon = adam.epsilon,
                .weight_decay = adam.weight_decay,
                .steps = trainer.step()};
  std::map<std::string, TensorView> by_name;
  for (const optim::NamedTensor& tensor : trainer.state()) by_name[tensor.name] = tensor.tensor;
  for (const model::Parameter& parameter : trainer.parameters()) {
    state.m.push_back(by_name.at(absl::StrCat("adamw.m/", parameter.name)));
    state.v.push_back(by_name.at(absl::StrCat("adamw.v/", parameter.name)));
  }
  return state;
}

// Adds `share` times the cosines at the trainer's present state.
absl::Status SelectDataJob::LessScores(double share) {
  features_->SetOptimizerState(StateOf(*trainer_));
  TY_RETURN_IF_ERROR(GatherTargets());
  std::vector<float> feature(static_cast<size_t>(features_->feature_size()));
  std::vector<double> row(static_cast<size_t>(columns()));
  return ForOwn(pool_->size(), [&](int64_t first, int64_t end) -> absl::Status {
    for (int64_t j = first; j < end; ++j) {
      TY_ASSIGN_OR_RETURN(const Sample sample, pool_->At(rank() + j * ranks()));
      TY_ASSIGN_OR_RETURN(const double norm, features_->Feature(sample, FeatureKind::kLess, feature.data(), stream()));
      ScoreAgainstTargets(feature.data(), norm, row.data());
      for (int64_t c = 0; c < columns(); ++c) {
        scores_[static_cast<size_t>(j * columns() + c)] += share * row[static_cast<size_t>(c)];
      }
    }
    return absl::OkStatus();
  });
}

// Cosines of a unit feature with each target, and the mean of the products of the un-normalised gradients, which is
// what the update model is about. A sample without a gradient is never selected.
void SelectDataJob::ScoreAgainstTargets(const float* feature, double norm, double* scores) const {
  const int64_t width = static_cast<int64_t>(target_features_.size()) / target_->size();
  double mean = 0;
  for (int64_t t = 0; t < target_->size(); ++t) {
    const double product = Dot(feature, target_features_.data() + t * width, width);
    scores[t] = norm > 0 ? product : -std::numeric_limits<double>::infinity();
    const bool has_norms = select_.method == SelectionMethod::kInfluence || select_.method == SelectionMethod::kExact;
    mean += has_norms ? product * norm * target_norms_[static_cast<size_t>(t)] : product;
  }
  scores[target_->size()] = mean / static_cast<double>(target_->size());
}

absl::Status SelectDataJob::EmbedRange(const influence::SelectionPool& pool, const std::vector<int64_t>& own,
                                       float* out) {
  TY_CHECK_LE(own.size(), static_cast<size_t>(kBatch));
  std::vector<std::vector<int32_t>> sequences;
  for (const int64_t i : own) {
    TY_ASSIGN_OR_RETURN(Sample sample, pool.At(i));
    if (static_cast<int64_t>(sample.tokens.size()) > select_.sequence_length) {
      sample.tokens.resize(static_cast<size_t>(select_.sequence_length));
    }
    sequences.push_back(std::move(sample.tokens));
  }
  // Into the memory of the device, then to `out` in one piece.
  TY_RETURN_IF_ERROR(tangents_->Run(sequences, stream(), [&](size_t s, const kernels::Dual<float>& states) {
    float* const embedding = embedding_memory_.out + static_cast<int64_t>(s) * embedding_width_;
    if (select_.method == SelectionMethod::kRdsPlus) {
      kernels::PositionMean({.states = states, .sums = embedding_memory_.sums, .out = embedding}, stream());
      return;
    }
    kernels::LastTangents(states, embedding_memory_.raw, stream());
    embedding_projection_->Apply(embedding_memory_.raw, embedding_memory_.scratch, embedding, stream());
  }));
  TY_RETURN_IF_ERROR(stream().Synchronize());
  std::copy_n(embedding_memory_.out, static_cast<int64_t>(own.size()) * embedding_width_, out);
  return absl::OkStatus();
}

absl::Status SelectDataJob::Embed(UnitResult* unit) {
  if (!uses_embeddings()) return absl::OkStatus();
  unit->metrics["samples"] = static_cast<double>(pool_->size());
  return ForOwn(pool_->size(), [&](int64_t first, int64_t end) {
    std::vector<int64_t> own;
    for (int64_t j = first; j < end; ++j) own.push_back(rank() + j * ranks());
    return EmbedRange(*pool_, own, embeddings_.data() + first * embedding_width_);
  });
}

absl::Status SelectDataJob::LandmarkGradients(UnitResult* unit) {
  if (!has_landmarks()) return absl::OkStatus();
  const auto count = static_cast<int64_t>(landmarks_.size());
  if (select_.landmarks.strategy == spec::LandmarkStrategy::kUniform) {
    landmarks_ = influence::UniformLandmarks(pool_->size(), count, select_.landmarks.seed, warmup_samples_);
  } else {
    TY_ASSIGN_OR_RETURN(const std::vector<float> all, Gather(embeddings_, pool_->size(), embedding_width_));
    landmarks_ = influence::SpreadLandmarks(all, embedding_width_, count, select_.landmarks.seed);
  }
  features_->SetOptimizerState(StateOf(*trainer_));
  unit->metrics["samples"] = static_cast<double>(count);
  const int64_t width = features_->feature_size();
  return ForOwn(count, [&](int64_t first, int64_t end) -> absl::Status {
    for (int64_t j = first; j < end; ++j) {
      TY_ASSIGN_OR_RETURN(const Sample sample, pool_->At(landmarks_[static_cast<size_t>(rank() + j * ranks())]));
      TY_ASSIGN_OR_RETURN(landmark_norms_[static_cast<size_t>(j)],
                          features_->Feature(sample, pool_kind(), landmark_features_.data() + j * width, stream()));
    }
    return absl::OkStatus();
  });
}

// The features of all targets, on all ranks.
absl::Status SelectDataJob::GatherTargets() {
  const std::vector<int64_t> own = Own(target_->size());
  const int64_t width = static_cast<int64_t>(target_features_.size()) / target_->size();
  std::vector<float> features(own.size() * static_cast<size_t>(width));
  std::vector<double> norms(own.size());
  TY_RETURN_IF_ERROR(ForOwn(target_->size(), [&](int64_t first, int64_t end) -> absl::Status {
    if (select_.method == SelectionMethod::kRdsPlus) {
      return EmbedRange(*target_, {own.begin() + first, own.begin() + end}, features.data() + first * width);
    }
    const FeatureKind kind = select_.method == SelectionMethod::kLess ? FeatureKind::kLessTarget : FeatureKind::kPlain;
    for (int64_t j = first; j < end; ++j) {
      TY_ASSIGN_OR_RETURN(const Sample sample, target_->At(own[static_cast<size_t>(j)]));
      TY_ASSIGN_OR_RETURN(norms[static_cast<size_t>(j)],
                          features_->Feature(sample, kind, features.data() + j * width, stream()));
    }
    return absl::OkStatus();
  }));
  TY_ASSIGN_OR_RETURN(target_features_, Gather(features, target_->size(), width));
  TY_ASSIGN_OR_RETURN(target_norms_, Gather(norms, target_->size(), 1));
  return absl::OkStatus();
}

absl::Status SelectDataJob::TargetGradients() {
  // LESS has gone through the targets at each of its checkpoints.
  if (!scores() || select_.method == SelectionMethod::kLess) return absl::OkStatus();
  return GatherTargets();
}

absl::Status SelectDataJob::Solve(UnitResult* unit) {
  if (!has_landmarks()) return absl::OkStatus();
  const auto count = static_cast<int64_t>(landmarks_.size());
  const int64_t width = features_->feature_size();
  std::vector<double> own(Own(count).size() * static_cast<size_t>(columns()));
  int64_t empty = 0;
  for (size_t j = 0; j < landmark_norms_.size(); ++j) {
    double* const row = own.data() + static_cast<int64_t>(j) * columns();
    ScoreAgainstTargets(landmark_features_.data() + static_cast<int64_t>(j) * width, landmark_norms_[j], row);
    if (landmark_norms_[j] > 0) continue;
    std::fill_n(row, columns(), 0.0);  // no gradient, no influence
    ++empty;
  }
  TY_ASSIGN_OR_RETURN(const std::vector<double> values, Gather(own, count, columns()));
  TY_ASSIGN_OR_RETURN(const std::vector<int64_t> empties, Gather(std::vector<int64_t>{empty}, ranks(), 1));
  numbers_["empty_gradients"] = 0;
  for (const int64_t one : empties) numbers_["empty_gradients"] += static_cast<double>(one);
  TY_ASSIGN_OR_RETURN(const std::vector<float> all, Gather(embeddings_, pool_->size(), embedding_width_));
  std::vector<float> embedded;
  for (const int64_t i : landmarks_) {
    embedded.insert(embedded.end(), all.begin() + i * embedding_width_, all.begin() + (i + 1) * embedding_width_);
  }

  // One rank solves; its word is everybody's, errors too.
  std::string word;
  std::array<double, 3> found = {0, 0, 0};  // sigma, Spearman, R^2 of what was left out
  if (rank() == 0) {
    const auto kept = count < kFewestForHeldOut
                          ? count
                          : count - static_cast<int64_t>(std::llround(kHeldOut * static_cast<double>(count)));
    const auto fit = [&](int64_t landmarks) {
      return influence::KernelRegression::Fit(
          select_.propagation, {embedded.begin(), embedded.begin() + landmarks * embedding_width_}, embedding_width_,
          {values.begin(), values.begin() + landmarks * columns()}, columns());
    };
    const absl::StatusOr<influence::KernelRegression> whole = fit(count);
    if (!whole.ok()) word = std::string(whole.status().message());
    if (whole.ok()) {
      coefficients_ = whole->coefficients();
      found[0] = whole->sigma();
    }
    if (const absl::StatusOr<influence::KernelRegression> part = fit(kept); part.ok() && kept < count) {
      std::vector<double> predicted(static_cast<size_t>((count - kept) * columns())), actual_mean, predicted_mean;
      part->Predict(embedded.data() + kept * embedding_width_, count - kept, predicted.data(), stream());
      const auto mean = [&](const double* row) {
        double sum = 0;
        for (int64_t t = 0; t < target_->size(); ++t) sum += row[t];
        return sum / static_cast<double>(target_->size());
      };
      for (int64_t i = kept; i < count; ++i) {
        actual_mean.push_back(mean(values.data() + i * columns()));
        predicted_mean.push_back(mean(predicted.data() + (i - kept) * columns()));
      }
      found[1] = influence::SpearmanCorrelation(actual_mean, predicted_mean);
      found[2] = influence::Determination(actual_mean, predicted_mean);
    }
  }
  if (ranks() > 1) {
    comm::Communicator& communicator = *context_->communicator();
    TY_ASSIGN_OR_RETURN(word, comm::BroadcastString(communicator, word, 0));
    if (word.empty()) {
      TY_RETURN_IF_ERROR(
          communicator.Broadcast(coefficients_.data(), static_cast<int64_t>(coefficients_.size() * sizeof(double)), 0));
      TY_RETURN_IF_ERROR(communicator.Broadcast(found.data(), sizeof(found), 0));
    }
  }
  if (!word.empty()) return absl::FailedPreconditionError(word);
  numbers_["landmarks"] = static_cast<double>(count);
  for (size_t i = 0; i < found.size(); ++i) {
    const char* const name = i == 0 ? "sigma" : i == 1 ? "heldout_spearman" : "heldout_r2";
    unit->metrics[name] = numbers_[name] = found[i];
  }
  return absl::OkStatus();
}

absl::Status SelectDataJob::Score(UnitResult* unit) {
  if (!scores() || select_.method == SelectionMethod::kLess) return absl::OkStatus();
  unit->metrics["samples"] = static_cast<double>(pool_->size());
  if (has_landmarks()) {
    TY_ASSIGN_OR_RETURN(const std::vector<float> all, Gather(embeddings_, pool_->size(), embedding_width_));
    std::vector<float> embedded;
    for (const int64_t i : landmarks_) {
      embedded.insert(embedded.end(), all.begin() + i * embedding_width_, all.begin() + (i + 1) * embedding_width_);
    }
    const influence::KernelRegression fit = influence::KernelRegression::FromFit(
        select_.propagation.kernel, numbers_["sigma"], embedded, embedding_width_, coefficients_, columns());
    return ForOwn(pool_->size(), [&](int64_t first, int64_t end) {
      fit.Predict(embeddings_.data() + first * embedding_width_, end - first, scores_.data() + first * columns(),
                  stream());
      return absl::OkStatus();
    });
  }
  const bool is_exact = select_.method == SelectionMethod::kExact;
  if (is_exact) features_->SetOptimizerState(StateOf(*trainer_));
  std::vector<float> feature(is_exact ? static_cast<size_t>(features_->feature_size()) : 0);
  return ForOwn(pool_->size(), [&](int64_t first, int64_t end) -> absl::Status {
    for (int64_t j = first; j < end; ++j) {
      double* const row = scores_.data() + j * columns();
      if (!is_exact) {
        ScoreAgainstTargets(embeddings_.data() + j * embedding_width_, 1, row);
        continue;
      }
      TY_ASSIGN_OR_RETURN(const Sample sample, pool_->At(rank() + j * ranks()));
      TY_ASSIGN_OR_RETURN(const double norm, features_->Feature(sample, pool_kind(), feature.data(), stream()));
      ScoreAgainstTargets(feature.data(), norm, row);
    }
    return absl::OkStatus();
  });
}

}  // namespace trainyard::jobs::internal
