// The inside of select_data_job.h, cut into three files: what surrounds the stages (select_data_job.cc), the stages
// that end in scores (select_data_scores.cc), and what is made of scores (select_data_choice.cc).
#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "base/status_macros.h"
#include "kernels/core/arena.h"
#include "kernels/transform/random_projection.h"
#include "worker/comm/communicator.h"
#include "worker/influence/gradient_features.h"
#include "worker/influence/selection_pool.h"
#include "worker/influence/selection_rules.h"
#include "worker/jobs/job.h"
#include "worker/jobs/select_data_job.h"
#include "worker/model/tangent_network.h"
#include "worker/train/trainer.h"

namespace trainyard::jobs::internal {

using influence::FeatureKind;
using influence::Sample;
using influence::Selected;
using kernels::TensorView;
using spec::SelectionMethod;

enum Stage { kWarmup, kEmbed, kLandmarkGradients, kTargetGradients, kSolve, kScore, kSelect, kWeigh, kStages };
static_assert(kStages == spec::kSelectionStages);
inline constexpr const char* kStageNames[] = {"warmup", "embed", "landmarks", "targets",
                                              "solve",  "score", "select",    "weigh"};

// Samples that go through the blocks together, and between two looks at the stop flag.
inline constexpr int64_t kBatch = 32;

inline double Dot(const float* a, const float* b, int64_t count) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += double{a[i]} * double{b[i]};
  return sum;
}

class SelectDataJob final : public Job {
 public:
  explicit SelectDataJob(const spec::JobOptions& options)
      : options_(options), select_(std::get<spec::SelectDataOptions>(options.kind)) {}

  absl::Status Prepare(JobContext& context) override;
  std::map<std::string, int64_t> MemoryPlan() const override;
  absl::Status Initialize() override {
    stage_ = 0;
    numbers_.clear();
    return InitializeTrainer();
  }
  absl::Status Restore(ckpt::CheckpointReader& reader) override;
  absl::Status Save(ckpt::CheckpointWriter& writer) override;
  int64_t step() const override { return stage_; }
  absl::StatusOr<UnitResult> RunUnit() override;
  absl::StatusOr<v1::JobResult> Finish() override;

 private:
  // ---- What the method has ----
  bool uses_gradients() const {
    return select_.method == SelectionMethod::kInfluence || select_.method == SelectionMethod::kExact ||
           select_.method == SelectionMethod::kLess;
  }
  bool uses_embeddings() const {
    return select_.method == SelectionMethod::kInfluence || select_.method == SelectionMethod::kRdsPlus;
  }
  bool scores() const { return select_.method != SelectionMethod::kRandom && select_.method != SelectionMethod::kFull; }
  bool warms_up() const { return scores() && select_.warmup.fraction > 0 && select_.warmup.epochs > 0; }
  // Of landmarks and pool samples. With SGD every element has the same factor, 1.
  FeatureKind pool_kind() const {
    const spec::SelectionScale scale = select_.gradients.optimizer_scale.value_or(
        warms_up() ? spec::SelectionScale::kAdam : spec::SelectionScale::kNone);
    return scale == spec::SelectionScale::kAdam ? FeatureKind::kScaled : FeatureKind::kPlain;
  }
  bool has_landmarks() const { return select_.method == SelectionMethod::kInfluence; }

  struct StateTensor {
    std::string name;
    TensorView bytes;
    bool is_local = false;
  };
  std::vector<StateTensor> StateTensors();
  absl::Status CheckOptions();
  absl::Status PrepareModel();
  absl::Status ReserveEmbeddings(kernels::Device device);
  absl::Status InitializeTrainer();
  void Allocate();
  spec::TrainingOptions WarmupTraining() const;

  absl::Status WarmUp(UnitResult* unit);
  absl::Status LessScores(double share);
  absl::Status Embed(UnitResult* unit);
  absl::Status EmbedRange(const influence::SelectionPool& pool, const std::vector<int64_t>& own, float* out);
  absl::Status LandmarkGradients(UnitResult* unit);
  absl::Status TargetGradients();
  absl::Status GatherTargets();
  absl::Status Solve(UnitResult* unit);
  absl::Status Score(UnitResult* unit);
  absl::Status Select(UnitResult* unit);
  absl::Status Weigh(UnitResult* unit);
  absl::StatusOr<std::function<void(const std::vector<double>&, std::vector<double>*)>> Curvature();
  void ScoreAgainstTargets(const float* feature, double norm, double* scores) const;

  // ---- Ranks ----
  int64_t rank() const { return context_->place().rank; }
  int64_t ranks() const { return context_->place().world_size; }
  // Number p of `count` things belongs to rank p mod ranks.
  std::vector<int64_t> Own(int64_t count) const {
    std::vector<int64_t> own;
    for (int64_t i = rank(); i < count; i += ranks()) own.push_back(i);
    return own;
  }
  // Rows of `width` numbers of each rank's things, in the things' order.
  template <typename T>
  absl::StatusOr<std::vector<T>> Gather(const std::vector<T>& own, int64_t count, int64_t width);
  // Calls body(place in own) for all, all ranks looking at the stop flag alike. Cancelled if asked to stop.
  template <typename Body>
  absl::Status ForOwn(int64_t count, const Body& body);
  absl::Status StopIfAsked() {
    TY_ASSIGN_OR_RETURN(const bool stops, context_->AgreeToStop());
    return stops ? absl::CancelledError("asked to stop") : absl::OkStatus();
  }

  kernels::Stream& stream() { return trainer_->stream(); }
  int64_t columns() const { return target_->size() + 1; }  // the last: un-normalised, mean over the targets
  nlohmann::ordered_json Report() const;

  const spec::JobOptions options_;
  const spec::SelectDataOptions& select_;
  JobContext* context_ = nullptr;
  std::unique_ptr<influence::SelectionPool> pool_, target_;
  std::string weights_directory_;
  std::unique_ptr<train::Trainer> trainer_;
  std::unique_ptr<influence::GradientFeatures> features_;
  std::unique_ptr<model::TangentNetwork<float>> tangents_;
  std::unique_ptr<kernels::RandomProjection> embedding_projection_;
  int64_t embedding_width_ = 0;
  // Of the device, for the embeddings of kBatch samples.
  struct EmbeddingMemory {
    float* out = nullptr;      // (kBatch, embedding_width_)
    float* raw = nullptr;      // before the projection
    float* scratch = nullptr;  // of the projection
    double* sums = nullptr;    // of RDS+
  };
  kernels::Arena embedding_arena_ = kernels::Arena::CountOnly();
  EmbeddingMemory embedding_memory_;
  std::vector<int64_t> warmup_samples_;

  // ---- State ----
  int64_t stage_ = 0;
  std::map<std::string, double> numbers_;  // results by name
  std::vector<float> embeddings_;          // (own pool samples, embedding_width_)
  std::vector<int64_t> landmarks_;         // pool samples, in the order drawn
  std::vector<float> landmark_features_;   // (own landmarks, feature size)
  std::vector<double> landmark_norms_;     // of own landmarks
  std::vector<float> target_features_;     // (targets, feature size), of all
  std::vector<double> target_norms_;
  std::vector<double> coefficients_;  // (landmarks, columns)
  std::vector<double> scores_;        // (own pool samples, columns)
  std::vector<Selected> selected_;    // room for all that may be selected
  std::vector<double> weights_;       // of selected_
};

template <typename T>
absl::StatusOr<std::vector<T>> SelectDataJob::Gather(const std::vector<T>& own, int64_t count, int64_t width) {
  if (ranks() == 1) return own;
  std::vector<int64_t> bytes, first;
  int64_t total = 0;
  for (int64_t r = 0; r < ranks(); ++r) {
    const int64_t things = count > r ? (count - r + ranks() - 1) / ranks() : 0;
    first.push_back(total);
    bytes.push_back(things * width * static_cast<int64_t>(sizeof(T)));
    total += things * width;
  }
  std::vector<T> by_rank(static_cast<size_t>(total)), ordered(by_rank.size());
  TY_RETURN_IF_ERROR(context_->communicator()->AllGatherBytes(own.data(), bytes, by_rank.data()));
  for (int64_t i = 0; i < count; ++i) {
    const int64_t from = first[static_cast<size_t>(i % ranks())] + i / ranks() * width;
    std::copy_n(by_rank.begin() + from, width, ordered.begin() + i * width);
  }
  return ordered;
}

template <typename Body>
absl::Status SelectDataJob::ForOwn(int64_t count, const Body& body) {
  const int64_t most = (count + ranks() - 1) / ranks();  // of any rank
  const auto own = static_cast<int64_t>(Own(count).size());
  for (int64_t first = 0; first < most; first += kBatch) {
    TY_RETURN_IF_ERROR(StopIfAsked());
    const int64_t end = std::min(first + kBatch, own);
    if (first < end) TY_RETURN_IF_ERROR(body(first, end));
  }
  return absl::OkStatus();
}

// The trainer's moments, by parameter.
influence::OptimizerState StateOf(const train::Trainer& trainer);

}  // namespace trainyard::jobs::internal
