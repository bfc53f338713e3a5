// What select_data makes of scores: a choice and weights.
#include <algorithm>
#include <cmath>
#include <utility>

#include "base/status_macros.h"
#include "worker/data/permutation.h"
#include "worker/influence/kernel_regression.h"
#include "worker/influence/sample_weights.h"
#include "worker/jobs/select_data_internal.h"

namespace trainyard::jobs::internal {

absl::Status SelectDataJob::Select(UnitResult* unit) {
  const uint64_t seed = options_.seed.value_or(0);
  std::vector<Selected> chosen;
  if (!scores()) {
    const data::Permutation order(pool_->size(), seed, 1);
    const int64_t count = select_.method == SelectionMethod::kFull ? pool_->size() : select_.count;
    for (int64_t i = 0; i < count; ++i) chosen.push_back({order(i), 0, 0});
  } else {
    TY_ASSIGN_OR_RETURN(const std::vector<double> all, Gather(scores_, pool_->size(), columns()));
    std::vector<double> by_target;
    for (int64_t i = 0; i < pool_->size(); ++i) {
      by_target.insert(by_target.end(), all.begin() + i * columns(), all.begin() + (i + 1) * columns() - 1);
    }
    const influence::ScoreTable table{by_target.data(), pool_->size(), target_->size()};
    switch (select_.rule) {
      case spec::SelectionRule::kRoundRobin:
        chosen = SelectRoundRobin(table, select_.count, seed);
        break;
      case spec::SelectionRule::kTopMax:
        chosen = SelectTopMax(table, select_.count);
        break;
      case spec::SelectionRule::kTopMean:
        chosen = SelectTopMean(table, select_.count);
        break;
      case spec::SelectionRule::kWeights:  // by what the weights are made from; the next stage says which stay
        for (int64_t i = 0; i < pool_->size(); ++i) {
          bool is_usable = true;
          for (int64_t c = 0; c < columns(); ++c) {
            is_usable = is_usable && std::isfinite(all[static_cast<size_t>(i * columns() + c)]);
          }
          if (is_usable) chosen.push_back({i, all[static_cast<size_t>((i + 1) * columns() - 1)], 0});
        }
        std::sort(chosen.begin(), chosen.end(), [](const Selected& a, const Selected& b) {
          return a.score != b.score ? a.score > b.score : a.sample < b.sample;
        });
        break;
    }
    if (chosen.empty()) return absl::FailedPreconditionError("no sample of the pool has a score that is finite");
  }
  std::copy(chosen.begin(), chosen.end(), selected_.begin());
  unit->metrics["selected"] = numbers_["selected"] = static_cast<double>(chosen.size());
  return absl::OkStatus();
}

// Q ~ C Q_L C^T with Q_L[i,j] = (1/N) u_i^T H u_j over the landmarks' scaled gradients u and the Hessian H of the mean
// target loss, from finite differences of gradients, in projected form; C carries a weight on a sample to the
// landmarks.
absl::StatusOr<std::function<void(const std::vector<double>&, std::vector<double>*)>> SelectDataJob::Curvature() {
  const auto count = static_cast<int64_t>(landmarks_.size());
  const int64_t width = features_->feature_size();
  const auto elements = static_cast<size_t>(features_->element_count());
  features_->SetOptimizerState(StateOf(*trainer_));
  TY_RETURN_IF_ERROR(features_->KeepWeights(stream()));
  double weight_square = 0;
  for (const TensorView& weight : trainer_->leading_weights()) {
    for (int64_t i = 0; i < weight.size(); ++i) {
      weight_square += double{weight.as<float>()[i]} * double{weight.as<float>()[i]};
    }
  }
  std::vector<float> u(elements), one(elements), difference(elements);
  // Adds factor times the targets' gradients at the weights moved by step * direction.
  const auto target_gradient = [&](const std::vector<float>& direction, double step, double factor) -> absl::Status {
    TY_RETURN_IF_ERROR(features_->MoveWeights(direction.data(), step, stream()));
    for (int64_t t = 0; t < target_->size(); ++t) {
      TY_ASSIGN_OR_RETURN(const Sample sample, target_->At(t));
      TY_RETURN_IF_ERROR(features_->Gradient(sample, FeatureKind::kPlain, one.data(), stream()));
      for (size_t e = 0; e < elements; ++e) difference[e] += static_cast<float>(factor) * one[e];
    }
    return features_->MoveWeights(direction.data(), 0, stream());
  };
  const std::vector<int64_t> own = Own(count);
  std::vector<float> own_u(own.size() * static_cast<size_t>(width)), own_hu(own_u.size());
  TY_RETURN_IF_ERROR(ForOwn(count, [&](int64_t first, int64_t end) -> absl::Status {
    for (int64_t j = first; j < end; ++j) {
      TY_ASSIGN_OR_RETURN(const Sample sample, pool_->At(landmarks_[static_cast<size_t>(own[static_cast<size_t>(j)])]));
      TY_RETURN_IF_ERROR(features_->Gradient(sample, pool_kind(), u.data(), stream()));
      const double norm = std::sqrt(Dot(u.data(), u.data(), static_cast<int64_t>(elements)));
      std::fill(difference.begin(), difference.end(), 0.0f);
      if (norm > 0) {
        // A thousandth of the weights' own norm: far above rounding, far below where the curvature changes.
        const double step = 1e-3 * std::sqrt(weight_square) / norm;
        const double factor = 1 / (2 * step * static_cast<double>(target_->size()));
        TY_RETURN_IF_ERROR(target_gradient(u, step, factor));
        TY_RETURN_IF_ERROR(target_gradient(u, -step, -factor));
      }
      TY_RETURN_IF_ERROR(features_->Project(u.data(), own_u.data() + j * width, stream()));
      TY_RETURN_IF_ERROR(features_->Project(difference.data(), own_hu.data() + j * width, stream()));
    }
    return absl::OkStatus();
  }));
  TY_ASSIGN_OR_RETURN(const std::vector<float> all_u, Gather(own_u, count, width));
  TY_ASSIGN_OR_RETURN(const std::vector<float> all_hu, Gather(own_hu, count, width));
  std::vector<double> q(static_cast<size_t>(count * count));
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t j = 0; j <= i; ++j) {
      const double value = (Dot(all_hu.data() + i * width, all_u.data() + j * width, width) +
                            Dot(all_hu.data() + j * width, all_u.data() + i * width, width)) /
                           2 / static_cast<double>(pool_->size());
      q[static_cast<size_t>(i * count + j)] = q[static_cast<size_t>(j * count + i)] = value;
    }
  }
  // C: what one at a landmark is worth at each sample.
  TY_ASSIGN_OR_RETURN(const std::vector<float> embeddings, Gather(embeddings_, pool_->size(), embedding_width_));
  std::vector<float> embedded;
  for (const int64_t i : landmarks_) {
    embedded.insert(embedded.end(), embeddings.begin() + i * embedding_width_,
                    embeddings.begin() + (i + 1) * embedding_width_);
  }
  std::vector<double> identity(static_cast<size_t>(count * count));
  for (int64_t i = 0; i < count; ++i) identity[static_cast<size_t>(i * count + i)] = 1;
  TY_ASSIGN_OR_RETURN(
      const influence::KernelRegression fit,
      influence::KernelRegression::Fit(select_.propagation, embedded, embedding_width_, std::move(identity), count));
  std::vector<double> c(static_cast<size_t>(pool_->size() * count));
  fit.Predict(embeddings.data(), pool_->size(), c.data(), stream());
  // Over the samples that are in the problem, in its order.
  std::vector<int64_t> rows;
  for (size_t i = 0; i < static_cast<size_t>(numbers_["selected"]); ++i) rows.push_back(selected_[i].sample);
  return [count, q = std::move(q), c = std::move(c), rows = std::move(rows)](const std::vector<double>& in,
                                                                             std::vector<double>* out) {
    std::vector<double> at_landmarks(static_cast<size_t>(count)), curved(at_landmarks.size());
    for (size_t i = 0; i < rows.size(); ++i) {
      for (int64_t l = 0; l < count; ++l) {
        at_landmarks[static_cast<size_t>(l)] += in[i] * c[static_cast<size_t>(rows[i] * count + l)];
      }
    }
    for (int64_t l = 0; l < count; ++l) {
      for (int64_t k = 0; k < count; ++k) {
        curved[static_cast<size_t>(l)] += q[static_cast<size_t>(l * count + k)] * at_landmarks[static_cast<size_t>(k)];
      }
    }
    out->assign(rows.size(), 0);
    for (size_t i = 0; i < rows.size(); ++i) {
      for (int64_t l = 0; l < count; ++l) {
        (*out)[i] += c[static_cast<size_t>(rows[i] * count + l)] * curved[static_cast<size_t>(l)];
      }
    }
  };
}

absl::Status SelectDataJob::Weigh(UnitResult* unit) {
  auto count = static_cast<size_t>(numbers_["selected"]);
  std::fill(weights_.begin(), weights_.end(), 1.0);
  if (select_.rule == spec::SelectionRule::kWeights) {
    influence::WeightProblem problem;
    problem.rule = select_.weights.lambda_rule;
    problem.count = std::min<int64_t>(select_.count, static_cast<int64_t>(count));
    problem.lambda = select_.weights.lambda;
    problem.maximum = select_.weights.maximum;
    if (select_.weights.second_order) {
      // The mean of a linear decay.
      problem.learning_rate = select_.warmup.learning_rate / 2;
      TY_ASSIGN_OR_RETURN(problem.quadratic, Curvature());
    }
    std::vector<double> p;
    for (size_t i = 0; i < count; ++i) p.push_back(selected_[i].score);
    TY_ASSIGN_OR_RETURN(const influence::WeightSolution solution, SolveWeights(p, problem));
    numbers_["lambda"] = solution.lambda;
    // Those without a weight are not selected.
    size_t kept = 0;
    for (size_t i = 0; i < count; ++i) {
      if (!(solution.weights[i] > 0)) continue;
      selected_[kept] = selected_[i];
      weights_[kept++] = solution.weights[i];
    }
    count = kept;
  }
  double sum = 0;
  for (size_t i = 0; i < count; ++i) sum += weights_[i];
  for (size_t i = 0; i < count; ++i) weights_[i] *= static_cast<double>(count) / sum;
  const std::vector<double> used(weights_.begin(), weights_.begin() + static_cast<int64_t>(count));
  unit->metrics["effective_size"] = numbers_["effective_size"] = influence::EffectiveSize(used);
  unit->metrics["selected"] = numbers_["selected"] = static_cast<double>(count);
  return absl::OkStatus();
}

}  // namespace trainyard::jobs::internal
