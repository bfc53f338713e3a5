// methods/elsa.md, check 6: a small network that learns a formula in disjunctive normal form, its first matrix pruned
// by Elsa or by magnitude with fine-tuning under the mask, with equal epochs. The order is asserted, with margin, of
// means over seeds; the notes' 20 seeds have Elsa ahead in 18 (90 %) and 19 (97 %).
#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>

#include "gtest/gtest.h"
#include "kernels/optim/adamw.h"
#include "kernels/prune/mask.h"
#include "kernels/prune/prune_select.h"
#include "kernels/testing/host_tensor.h"
#include "worker/optim/elsa/elsa_optimizer.h"

namespace trainyard::optim {
namespace {

using kernels::DType;
using kernels::testing::HostTensor;

constexpr int kInputs = 32, kHidden = 32, kClauses = 8, kLiterals = 3;
constexpr int kTrain = 8192, kTest = 4096, kBatch = 256, kEpochs = 60;
constexpr int kSteps = kEpochs * kTrain / kBatch;
constexpr float kRate = 3e-3f;

struct Examples {
  std::vector<float> x;  // (count, kInputs)
  std::vector<float> label;
};

// Generator G2 of methods/feature-channels.md; clause c has the literals 3 c .. 3 c + 2.
class Formula {
 public:
  explicit Formula(uint32_t seed) : random_(seed) {}

  Examples Draw(int count) {
    Examples examples;
    for (int i = 0; i < count; ++i) {
      std::vector<bool> bits(kInputs);
      for (int j = 0; j < kInputs; ++j) bits[static_cast<size_t>(j)] = Below(2) == 1;
      for (int clause = 0; clause < kClauses; ++clause) {
        if (Holds(bits, clause)) bits[static_cast<size_t>(clause * kLiterals + Below(kLiterals))] = false;
      }
      if (Below(2) == 1) {
        const int clause = Below(kClauses);
        for (int j = 0; j < kLiterals; ++j) bits[static_cast<size_t>(clause * kLiterals + j)] = true;
      } else {
        bits = WithDecoy(bits);
      }
      for (const bool bit : bits) examples.x.push_back(bit ? 1.0f : 0.0f);
      examples.label.push_back(HoldsAny(bits) ? 1.0f : 0.0f);
    }
    return examples;
  }

  float Uniform() { return static_cast<float>(random_() >> 8) * 0x1p-24f; }
  int Below(int limit) { return static_cast<int>(Uniform() * static_cast<float>(limit)); }

 private:
  static bool Holds(const std::vector<bool>& bits, int clause) {
    const auto first = static_cast<size_t>(clause * kLiterals);
    return bits[first] && bits[first + 1] && bits[first + 2];
  }
  static bool HoldsAny(const std::vector<bool>& bits) {
    for (int clause = 0; clause < kClauses; ++clause) {
      if (Holds(bits, clause)) return true;
    }
    return false;
  }
  // As many bits set as a clause has, but none satisfied, if twenty tries find such.
  std::vector<bool> WithDecoy(const std::vector<bool>& bits) {
    std::vector<bool> decoy;
    for (int attempt = 0; attempt < 20; ++attempt) {
      decoy = bits;
      for (int j = 0; j < kLiterals; ++j) decoy[static_cast<size_t>(Below(kInputs))] = true;
      if (!HoldsAny(decoy)) break;
    }
    return decoy;
  }

  std::mt19937 random_;
};

// o = w2 relu(w1 x + b1) + b2, with its gradients.
struct Network {
  std::vector<HostTensor> weights, gradients;  // w1, b1, w2, b2

  explicit Network(Formula* random) {
    Add({kHidden, kInputs}, kInputs, random);
    Add({kHidden}, kInputs, random);
    Add({kHidden}, kHidden, random);
    Add({1}, kHidden, random);
  }
  Network(const Network& other) {
    for (const HostTensor& weight : other.weights) weights.push_back(weight.Copy());
    for (const HostTensor& gradient : other.gradients) gradients.push_back(gradient.Copy());
  }

  float Output(const float* x, float* hidden) const {
    const float *w1 = weights[0].as<float>(), *b1 = weights[1].as<float>(), *w2 = weights[2].as<float>();
    float output = *weights[3].as<float>();
    for (int a = 0; a < kHidden; ++a) {
      float sum = 0;
      for (int i = 0; i < kInputs; ++i) sum += w1[a * kInputs + i] * x[i];
      hidden[a] = std::max(0.0f, sum + b1[a]);
      output += w2[a] * hidden[a];
    }
    return output;
  }

  void Backward(const Examples& examples, const std::vector<int>& order, int first) {
    for (const HostTensor& gradient : gradients) {
      std::memset(gradient.view().data(), 0, static_cast<size_t>(gradient.view().bytes()));
    }
    const float* const w2 = weights[2].as<float>();
    float *g1 = gradients[0].as<float>(), *gb1 = gradients[1].as<float>(), *g2 = gradients[2].as<float>();
    for (int n = first; n < first + kBatch; ++n) {
      const auto example = static_cast<size_t>(order[static_cast<size_t>(n)]);
      const float* const x = examples.x.data() + example * kInputs;
      float hidden[kHidden];
      const float probability = 1.0f / (1.0f + std::exp(-Output(x, hidden)));
      const float d = (probability - examples.label[example]) / kBatch;
      *gradients[3].as<float>() += d;
      for (int a = 0; a < kHidden; ++a) {
        g2[a] += d * hidden[a];
        if (hidden[a] <= 0) continue;
        const float d_hidden = d * w2[a];
        gb1[a] += d_hidden;
        for (int i = 0; i < kInputs; ++i) g1[a * kInputs + i] += d_hidden * x[i];
      }
    }
  }

  double Accuracy(const Examples& examples) const {
    int right = 0;
    float hidden[kHidden];
    for (size_t i = 0; i < examples.label.size(); ++i) {
      right += (Output(examples.x.data() + i * kInputs, hidden) > 0) == (examples.label[i] > 0.5f);
    }
    return static_cast<double>(right) / static_cast<double>(examples.label.size());
  }

 private:
  void Add(const std::vector<int64_t>& shape, int fan_in, Formula* random) {
    weights.push_back(HostTensor(DType::kF32, shape));
    gradients.push_back(HostTensor(DType::kF32, shape));
    const HostTensor& weight = weights.back();
    for (int64_t i = 0; i < weight.view().size(); ++i) {
      weight.as<float>()[i] = (2 * random->Uniform() - 1) / std::sqrt(static_cast<float>(fan_in));
    }
  }
};

// Calls update(step) behind the gradients of each of kSteps batches.
template <typename Update>
void Train(const Examples& examples, uint32_t seed, Network* network, const Update& update) {
  std::mt19937 random(seed);
  std::vector<int> order(kTrain);
  for (int i = 0; i < kTrain; ++i) order[static_cast<size_t>(i)] = i;
  for (int step = 0; step < kSteps; ++step) {
    const int first = step * kBatch % kTrain;
    if (first == 0) std::shuffle(order.begin(), order.end(), random);
    network->Backward(examples, order, first);
    update(step);
  }
}

// Adam on all weights; after each step w1 is masked, if there is a mask.
void TrainByAdam(const Examples& examples, uint32_t seed, Network* network, const kernels::TensorView& mask,
                 bool decays) {
  kernels::Stream stream(1);
  std::vector<HostTensor> m, v;
  for (const HostTensor& weight : network->weights) {
    m.push_back(HostTensor(DType::kF32, {weight.view().size()}));
    v.push_back(HostTensor(DType::kF32, {weight.view().size()}));
  }
  Train(examples, seed, network, [&](int step) {
    const float rate = decays ? kRate * static_cast<float>(kSteps - step) / kSteps : kRate;
    for (size_t i = 0; i < m.size(); ++i) {
      AdamW({.param = network->weights[i],
             .grad = network->gradients[i],
             .m = m[i],
             .v = v[i],
             .lr = rate,
             .beta2 = 0.999f,
             .step = step + 1},
            stream);
    }
    if (mask) MaskApply({.x = network->weights[0], .mask = mask}, stream);
  });
}

HostTensor MagnitudeMask(const Network& network, double sparsity) {
  HostTensor mask(DType::kU8, {kernels::MaskBytes(kHidden * kInputs)});
  const HostTensor counts(DType::kU32, {256});
  const kernels::PruneScore score = {.w = network.weights[0]};
  kernels::Stream stream(1);
  PruneLowest({&score, 1}, kernels::PrunedCount(kHidden * kInputs, kernels::PartsPerMillion(sparsity)),
              {&mask.view(), 1}, counts, stream);
  return mask;
}

// Returns the residual at the last projection.
double TrainByElsa(const Examples& examples, uint32_t seed, double sparsity, Network* network) {
  spec::ElsaOptions options;
  options.sparsity = sparsity;
  options.interval = 8;
  options.lambda = 1;
  options.lambda_schedule = spec::ElsaOptions::Schedule::kCosine;
  options.projection = spec::ElsaOptions::Projection::kMagnitude;
  options.beta2 = 0.999;
  const char* const names[] = {"layers.0.w1.weight", "b1", "w2", "b2"};
  std::vector<OptimizerParameter> parameters;
  for (size_t i = 0; i < 4; ++i) {
    parameters.push_back({.name = names[i],
                          .weight = network->weights[i],
                          .master = {},
                          .gradient = network->gradients[i],
                          .decays = false});
  }
  kernels::Arena counting = kernels::Arena::CountOnly();
  MakeElsaOptimizer(options, parameters, counting);
  kernels::Arena arena = *kernels::Arena::Reserve(counting.used_bytes());
  const std::unique_ptr<Optimizer> optimizer = MakeElsaOptimizer(options, parameters, arena);
  kernels::Stream stream(1);
  std::map<std::string, double> metrics;
  Train(examples, seed, network, [&](int step) {
    optimizer->Update(
        {.update = step + 1, .learning_rate = kRate * static_cast<double>(kSteps - step) / kSteps, .steps = kSteps},
        stream);
    std::map<std::string, double> last;
    optimizer->AddMetrics(&last);
    if (!last.empty()) metrics = last;
  });
  optimizer->Finalize(stream);
  return metrics.at("elsa_residual");
}

TEST(DnfTest, ElsaBeatsMagnitudeWithFineTuning) {
  constexpr int kSeeds = 4;
  const double sparsities[] = {0.9, 0.97};
  double gain[2] = {}, drop[2] = {}, residual = 0;
  for (uint32_t seed = 1; seed <= kSeeds; ++seed) {
    Formula formula(seed);
    const Examples train = formula.Draw(kTrain), test = formula.Draw(kTest);
    Network dense(&formula);
    TrainByAdam(train, seed, &dense, {}, /*decays=*/false);
    ASSERT_GT(dense.Accuracy(test), 0.85);
    for (int i = 0; i < 2; ++i) {
      Network tuned = dense, elsa = dense;
      const HostTensor mask = MagnitudeMask(dense, sparsities[i]);
      kernels::Stream stream(1);
      MaskApply({.x = tuned.weights[0], .mask = mask}, stream);
      drop[i] += (dense.Accuracy(test) - tuned.Accuracy(test)) / kSeeds;
      TrainByAdam(train, seed + 100, &tuned, mask, /*decays=*/true);
      const double last = TrainByElsa(train, seed + 100, sparsities[i], &elsa);
      if (i == 0) residual += last / kSeeds;
      gain[i] += (elsa.Accuracy(test) - tuned.Accuracy(test)) / kSeeds;
    }
  }
  RecordProperty("gain90", std::to_string(gain[0]));
  RecordProperty("gain97", std::to_string(gain[1]));
  EXPECT_GT(drop[0], 0.2);  // the task is hard to prune
  EXPECT_GT(gain[0], 0.01);
  EXPECT_GT(gain[1], 0.03);
  EXPECT_LT(residual, 0.05);
}

}  // namespace
}  // namespace trainyard::optim
