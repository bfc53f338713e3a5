// Evidence 9 of influence-distillation.md: a 32-32-4 tanh network, 4 domains with label rules of their own, 1000
// samples each; 64 target samples of domain 0; 400 of 4000 are selected and a fresh network is trained on them at equal
// steps. Only relations of the means over seeds are held, with the margins of the method file.
#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <vector>

#include "base/check.h"
#include "gtest/gtest.h"
#include "kernels/core/philox.h"
#include "kernels/core/stream.h"
#include "kernels/tangent/random_direction.h"
#include "worker/data/permutation.h"
#include "worker/influence/kernel_regression.h"
#include "worker/influence/selection_rules.h"

namespace trainyard::influence {
namespace {

constexpr int64_t kIn = 32, kHidden = 32, kClasses = 4, kDomains = 4;
constexpr int64_t kPool = 4000, kTargets = 64, kTest = 1000, kCount = 400;
constexpr int64_t kParameters = kHidden * kIn + kHidden + kClasses * kHidden + kClasses;
constexpr double kShift = 0.6;  // of a domain's centre, a number

using Numbers = std::vector<double>;

Numbers Normal(int64_t count, uint64_t seed, uint32_t tensor) {
  Numbers out(static_cast<size_t>(count));
  kernels::FillDirection({.seed = seed, .tensor = tensor}, 0, count, out.data());
  return out;
}

struct Example {
  const double* x = nullptr;
  int64_t label = 0;
  bool is_right = true;
  int64_t domain = 0;
};

struct Task {
  Task(uint64_t seed, double noise) {
    for (int64_t d = 0; d < kDomains; ++d) {
      centres.push_back(Normal(kIn, seed, static_cast<uint32_t>(100 + d)));
      rules.push_back(Normal(kClasses * kIn, seed, static_cast<uint32_t>(200 + d)));
    }
    inputs = Normal((kPool + kTargets + kTest) * kIn, seed, 300);
    const kernels::PhiloxKey coin{.seed = seed, .purpose = kernels::kRandomTest};
    for (int64_t i = 0; i < kPool + kTargets + kTest; ++i) {
      Example example;
      example.domain = i < kPool ? i % kDomains : 0;
      double* const x = inputs.data() + i * kIn;
      for (int64_t c = 0; c < kIn; ++c) {
        x[c] += kShift * centres[static_cast<size_t>(example.domain)][static_cast<size_t>(c)];
      }
      example.x = x;
      double best = 0;
      for (int64_t k = 0; k < kClasses; ++k) {
        double value = 0;
        for (int64_t c = 0; c < kIn; ++c) {
          value += rules[static_cast<size_t>(example.domain)][static_cast<size_t>(k * kIn + c)] *
                   (x[c] - kShift * centres[static_cast<size_t>(example.domain)][static_cast<size_t>(c)]);
        }
        if (k == 0 || value > best) {
          best = value;
          example.label = k;
        }
      }
      if (i < kPool && double{kernels::ToUniform(RandomWord(coin, static_cast<uint64_t>(i)))} < noise) {
        example.label =
            (example.label + 1 + static_cast<int64_t>(RandomWord(coin, static_cast<uint64_t>(kPool + i)) % 3)) %
            kClasses;
        example.is_right = false;
      }
      (i < kPool ? pool : i < kPool + kTargets ? targets : test).push_back(example);
    }
  }
  std::vector<Numbers> centres, rules;
  Numbers inputs;
  std::vector<Example> pool, targets, test;
};

struct Network {
  explicit Network(uint64_t seed) : theta(Normal(kParameters, seed, 400)) {
    const double scale = 1 / std::sqrt(static_cast<double>(kIn));
    for (double& value : theta) value *= scale;
    std::fill(theta.begin() + kHidden * kIn, theta.begin() + kHidden * kIn + kHidden, 0);
    std::fill(theta.end() - kClasses, theta.end(), 0);
  }
  const double* w1() const { return theta.data(); }
  const double* b1() const { return theta.data() + kHidden * kIn; }
  const double* w2() const { return b1() + kHidden; }
  const double* b2() const { return w2() + kClasses * kHidden; }

  void Forward(const double* x, double* hidden, double* probability) const {
    for (int64_t h = 0; h < kHidden; ++h) {
      double sum = b1()[h];
      for (int64_t c = 0; c < kIn; ++c) sum += w1()[h * kIn + c] * x[c];
      hidden[h] = std::tanh(sum);
    }
    double total = 0;
    for (int64_t k = 0; k < kClasses; ++k) {
      double sum = b2()[k];
      for (int64_t h = 0; h < kHidden; ++h) sum += w2()[k * kHidden + h] * hidden[h];
      probability[k] = std::exp(sum);
      total += probability[k];
    }
    for (int64_t k = 0; k < kClasses; ++k) probability[k] /= total;
  }
  // gradient += that of the example's loss.
  void AddGradient(const Example& example, double* gradient) const {
    double hidden[kHidden], probability[kClasses];
    Forward(example.x, hidden, probability);
    probability[example.label] -= 1;
    double* const g2 = gradient + kHidden * kIn + kHidden;
    for (int64_t k = 0; k < kClasses; ++k) {
      for (int64_t h = 0; h < kHidden; ++h) g2[k * kHidden + h] += probability[k] * hidden[h];
      g2[kClasses * kHidden + k] += probability[k];
    }
    for (int64_t h = 0; h < kHidden; ++h) {
      double back = 0;
      for (int64_t k = 0; k < kClasses; ++k) back += probability[k] * w2()[k * kHidden + h];
      back *= 1 - hidden[h] * hidden[h];
      for (int64_t c = 0; c < kIn; ++c) gradient[h * kIn + c] += back * example.x[c];
      gradient[kHidden * kIn + h] += back;
    }
  }
  // Tangent of the hidden layer along direction `k`.
  void HiddenTangent(const double* x, const Numbers& direction, float* out) const {
    double hidden[kHidden], probability[kClasses];
    Forward(x, hidden, probability);
    for (int64_t h = 0; h < kHidden; ++h) {
      double dot = direction[static_cast<size_t>(kHidden * kIn + h)];
      for (int64_t c = 0; c < kIn; ++c) dot += direction[static_cast<size_t>(h * kIn + c)] * x[c];
      out[h] = static_cast<float>((1 - hidden[h] * hidden[h]) * dot);
    }
  }
  double Accuracy(const std::vector<Example>& examples) const {
    double hidden[kHidden], probability[kClasses], right = 0;
    for (const Example& example : examples) {
      Forward(example.x, hidden, probability);
      right += std::max_element(probability, probability + kClasses) - probability == example.label ? 1 : 0;
    }
    return right / static_cast<double>(examples.size());
  }
  // Adam, batches of 32 in epochs.
  void Train(const std::vector<const Example*>& samples, int64_t steps, uint64_t seed) {
    Numbers m(theta.size()), v(theta.size()), gradient(theta.size());
    const auto count = static_cast<int64_t>(samples.size());
    int64_t next = 0;
    for (int64_t step = 1; step <= steps; ++step) {
      std::fill(gradient.begin(), gradient.end(), 0);
      for (int i = 0; i < 32; ++i, ++next) {
        const data::Permutation order(count, seed, static_cast<uint32_t>(next / count));
        AddGradient(*samples[static_cast<size_t>(order(next % count))], gradient.data());
      }
      const double c1 = 1 - std::pow(0.9, static_cast<double>(step)),
                   c2 = 1 - std::pow(0.99, static_cast<double>(step));
      for (size_t i = 0; i < theta.size(); ++i) {
        const double g = gradient[i] / 32;
        m[i] = 0.9 * m[i] + 0.1 * g;
        v[i] = 0.99 * v[i] + 0.01 * g * g;
        theta[i] -= 3e-3 * m[i] / c1 / (std::sqrt(v[i] / c2) + 1e-8);
      }
    }
  }
  Numbers theta;
};

// Unit vectors, (count, width).
std::vector<float> Normalised(std::vector<float> rows, int64_t width) {
  for (size_t begin = 0; begin < rows.size(); begin += static_cast<size_t>(width)) {
    double square = 0;
    for (int64_t c = 0; c < width; ++c) square += std::pow(double{rows[begin + static_cast<size_t>(c)]}, 2);
    const auto scale = static_cast<float>(1 / std::sqrt(square));
    for (int64_t c = 0; c < width; ++c) rows[begin + static_cast<size_t>(c)] *= scale;
  }
  return rows;
}

// (pool, targets) cosines.
Numbers Cosines(const std::vector<float>& pool, const std::vector<float>& targets, int64_t width) {
  Numbers scores;
  for (size_t i = 0; i < pool.size(); i += static_cast<size_t>(width)) {
    for (size_t t = 0; t < targets.size(); t += static_cast<size_t>(width)) {
      float sum = 0;
      for (int64_t c = 0; c < width; ++c) sum += pool[i + static_cast<size_t>(c)] * targets[t + static_cast<size_t>(c)];
      scores.push_back(double{sum});
    }
  }
  return scores;
}

struct Outcome {
  double accuracy = 0, share_of_domain = 0, share_of_right = 0;
};
using Outcomes = std::map<std::string, Outcome>;

class Simulation {
 public:
  Simulation(uint64_t seed, double noise) : seed_(seed), task_(seed, noise), warm_(seed) {
    // The warm-up on 5 %, outside of which landmarks are drawn.
    const data::Permutation order(kPool, seed, 7);
    std::vector<const Example*> few;
    for (int64_t i = 0; i < kPool / 20; ++i) {
      few.push_back(&task_.pool[static_cast<size_t>(order(i))]);
    }
    for (int64_t i = kPool / 20; i < kPool; ++i) outside_.push_back(order(i));
    warm_.Train(few, 50, seed);
    pool_gradients_ = Gradients(task_.pool);
    target_gradients_ = Gradients(task_.targets);
    exact_ = Cosines(pool_gradients_, target_gradients_, kParameters);
  }

  Outcomes Run() {
    Outcomes outcomes;
    const data::Permutation order(kPool, seed_, 8);
    std::vector<int64_t> random, full(kPool), oracle;
    for (int64_t i = 0; i < kCount; ++i) random.push_back(order(i));
    std::iota(full.begin(), full.end(), int64_t{0});
    for (int64_t i = 0; i < kPool && static_cast<int64_t>(oracle.size()) < kCount; ++i) {
      const Example& example = task_.pool[static_cast<size_t>(i)];
      if (example.domain == 0 && example.is_right) oracle.push_back(i);
    }
    const ScoreTable exact{exact_.data(), kPool, kTargets};
    outcomes["a"] = Judge(random);
    outcomes["b"] = Judge(full);
    const Numbers hidden = Cosines(Hidden(task_.pool), Hidden(task_.targets), kHidden);
    outcomes["c"] = Judge(Samples(SelectRoundRobin({hidden.data(), kPool, kTargets}, kCount, seed_)));
    outcomes["d"] = Judge(Samples(SelectRoundRobin(exact, kCount, seed_)));
    outcomes["e"] = Judge(Samples(SelectTopMean(exact, kCount)));
    outcomes["f"] = Judge(Samples(Propagated(512, false)));
    outcomes["g"] = Judge(Samples(Propagated(512, true)));
    const std::vector<Selected> ranked = SelectTopMean(exact, kPool);
    outcomes["h"] = Judge(Samples({ranked.end() - kCount, ranked.end()}));
    outcomes["i"] = Judge(oracle);
    return outcomes;
  }

  // Rank correlation of propagated and exact mean scores.
  double Correlation(int64_t landmarks, bool with_label) {
    const Numbers scores = Propagate(landmarks, with_label);
    return SpearmanCorrelation(Means(scores), Means(exact_));
  }

 private:
  std::vector<float> Gradients(const std::vector<Example>& examples) const {
    std::vector<float> all;
    Numbers gradient(kParameters);
    for (const Example& example : examples) {
      std::fill(gradient.begin(), gradient.end(), 0);
      warm_.AddGradient(example, gradient.data());
      all.insert(all.end(), gradient.begin(), gradient.end());
    }
    return Normalised(std::move(all), kParameters);
  }
  std::vector<float> Hidden(const std::vector<Example>& examples) const {
    std::vector<float> all;
    double hidden[kHidden], probability[kClasses];
    for (const Example& example : examples) {
      warm_.Forward(example.x, hidden, probability);
      all.insert(all.end(), hidden, hidden + kHidden);
    }
    return Normalised(std::move(all), kHidden);
  }
  // Two tangents of the hidden layer; the label as a one-hot vector of the embedding's norm behind them.
  std::vector<float> Embeddings(bool with_label, int64_t* width) const {
    *width = 2 * kHidden + (with_label ? kClasses : 0);
    std::vector<float> all(static_cast<size_t>(kPool * *width));
    for (uint32_t k = 0; k < 2; ++k) {
      const Numbers direction = Normal(kParameters, seed_ + 43, 500 + k);
      for (int64_t i = 0; i < kPool; ++i) {
        warm_.HiddenTangent(task_.pool[static_cast<size_t>(i)].x, direction, all.data() + i * *width + k * kHidden);
      }
    }
    for (int64_t i = 0; i < kPool && with_label; ++i) {
      float* const row = all.data() + i * *width;
      double square = 0;
      for (int64_t c = 0; c < 2 * kHidden; ++c) square += double{row[c]} * double{row[c]};
      row[2 * kHidden + task_.pool[static_cast<size_t>(i)].label] = static_cast<float>(std::sqrt(square));
    }
    return all;
  }
  Numbers Propagate(int64_t landmarks, bool with_label) const {
    int64_t width = 0;
    const std::vector<float> all = Embeddings(with_label, &width);
    std::vector<float> embedded;
    Numbers values;
    for (int64_t i = 0; i < landmarks; ++i) {
      const int64_t sample = outside_[static_cast<size_t>(i)];
      embedded.insert(embedded.end(), all.begin() + sample * width, all.begin() + (sample + 1) * width);
      values.insert(values.end(), exact_.begin() + sample * kTargets, exact_.begin() + (sample + 1) * kTargets);
    }
    const absl::StatusOr<KernelRegression> fit = KernelRegression::Fit({}, embedded, width, values, kTargets);
    TY_CHECK_OK(fit);
    Numbers scores(static_cast<size_t>(kPool * kTargets));
    kernels::Stream stream(1);
    fit->Predict(all.data(), kPool, scores.data(), stream);
    return scores;
  }
  std::vector<Selected> Propagated(int64_t landmarks, bool with_label) const {
    const Numbers scores = Propagate(landmarks, with_label);
    return SelectRoundRobin({scores.data(), kPool, kTargets}, kCount, seed_);
  }
  static Numbers Means(const Numbers& scores) {
    Numbers means(kPool);
    for (int64_t i = 0; i < kPool; ++i) {
      means[static_cast<size_t>(i)] =
          std::accumulate(scores.begin() + i * kTargets, scores.begin() + (i + 1) * kTargets, 0.0);
    }
    return means;
  }
  static std::vector<int64_t> Samples(const std::vector<Selected>& selected) {
    std::vector<int64_t> samples;
    for (const Selected& one : selected) samples.push_back(one.sample);
    return samples;
  }
  Outcome Judge(const std::vector<int64_t>& samples) const {
    Outcome outcome;
    std::vector<const Example*> chosen;
    for (const int64_t i : samples) {
      const Example& example = task_.pool[static_cast<size_t>(i)];
      chosen.push_back(&example);
      outcome.share_of_domain += example.domain == 0 ? 1.0 / static_cast<double>(samples.size()) : 0;
      outcome.share_of_right += example.is_right ? 1.0 / static_cast<double>(samples.size()) : 0;
    }
    Network network(seed_ + 1000);
    network.Train(chosen, 600, seed_ + 1);
    outcome.accuracy = network.Accuracy(task_.test);
    return outcome;
  }

  const uint64_t seed_;
  const Task task_;
  Network warm_;
  std::vector<int64_t> outside_;
  std::vector<float> pool_gradients_, target_gradients_;
  Numbers exact_;
};

// Means over the seeds.
Outcomes MeanOutcomes(double noise) {
  constexpr uint64_t kSeeds = 5;
  Outcomes means;
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    for (const auto& [name, outcome] : Simulation(seed, noise).Run()) {
      means[name].accuracy += outcome.accuracy / kSeeds;
      means[name].share_of_domain += outcome.share_of_domain / kSeeds;
      means[name].share_of_right += outcome.share_of_right / kSeeds;
    }
  }
  for (const auto& [name, outcome] : means) {
    std::printf("9%s accuracy %.3f, share of domain 0 %.3f, right labels %.3f\n", name.c_str(), outcome.accuracy,
                outcome.share_of_domain, outcome.share_of_right);
  }
  return means;
}

TEST(MlpSimulationTest, RelationsOnACleanPool) {
  Outcomes o = MeanOutcomes(0);
  EXPECT_GT(o["i"].accuracy, o["d"].accuracy);
  EXPECT_GT(o["d"].accuracy, o["b"].accuracy);
  EXPECT_GT(o["b"].accuracy, o["a"].accuracy);
  EXPECT_GT(o["a"].accuracy, o["h"].accuracy);
  EXPECT_GT(o["d"].accuracy - o["a"].accuracy, 0.15);
  EXPECT_GT(o["g"].accuracy - o["a"].accuracy, 0.15);
  EXPECT_LT(o["d"].accuracy - o["g"].accuracy, 0.08);
  EXPECT_GT(o["d"].accuracy, o["e"].accuracy);  // coverage
}

TEST(MlpSimulationTest, RelationsWithWrongLabels) {
  Outcomes o = MeanOutcomes(0.4);
  EXPECT_GT(o["i"].accuracy, o["d"].accuracy);
  EXPECT_GT(o["d"].accuracy, o["a"].accuracy);
  EXPECT_GT(o["g"].accuracy, o["c"].accuracy);
  EXPECT_GT(o["d"].share_of_right - o["b"].share_of_right, 0.05);
  EXPECT_LT(o["f"].share_of_right - o["b"].share_of_right, 0.03);  // it does not see labels
}

TEST(MlpSimulationTest, MoreLandmarksRankBetter) {
  Simulation simulation(1, 0);
  double before = 0;
  for (const int64_t landmarks : {128, 512, 1500}) {
    const double correlation = simulation.Correlation(landmarks, /*with_label=*/true);
    std::printf("%d landmarks: rank correlation %.3f with the label, %.3f without\n", static_cast<int>(landmarks),
                correlation, simulation.Correlation(landmarks, false));
    EXPECT_GT(correlation, before);
    before = correlation;
  }
  EXPECT_GT(before, simulation.Correlation(1500, false));
}

}  // namespace
}  // namespace trainyard::influence
