// The job kind select_data, typed and with its defaults. Free of protobuf, so that worker/ may include it. Ranges are
// enforced by ParseSelectData and stated beside each field; what depends on the pool's size is checked by the job.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

namespace trainyard::v1 {
class SelectDataSpec;
}

namespace trainyard::spec {

class FieldErrors;

enum class SelectionMethod { kInfluence, kExact, kRdsPlus, kLess, kRandom, kFull };
enum class SelectionProjection { kHadamard, kRademacher, kNone };
enum class SelectionScale { kNone, kSgd, kAdam };
enum class LandmarkStrategy { kUniform, kKmeansPlusPlus };
enum class RegressionKernel { kRbf, kLinear };
enum class SelectionRule { kRoundRobin, kTopMean, kTopMax, kWeights };
enum class LambdaRule { kSupport, kFixed, kEffectiveSize };

// The units of the job: warm-up, embeddings, landmarks' gradients, targets' gradients, solve, scores, selection,
// weights.
inline constexpr int kSelectionStages = 8;

struct SelectionWarmupOptions {
  double fraction = 0.05;       // [0, 1] of the pool; 0: none
  int32_t epochs = 4;           // 0..20; 0: none
  double learning_rate = 2e-5;  // (0, 1e-2]
  int32_t batch = 32;           // 1..65,536 samples
};
struct SelectionEmbeddingOptions {
  int32_t blocks = 4;             // 1..1024; at most the model's
  int32_t tangents = 2;           // 1..16
  int32_t projection_dim = 4096;  // 64..65,536
  uint64_t seed = 43;
};
struct SelectionGradientOptions {
  std::vector<std::string> parameters = {"*down*"};  // patterns of our parameter names
  int64_t mask_elements = 0;                         // >= 0; 0: all
  int32_t projection_dim = 32'768;                   // 64..131,072
  SelectionProjection projection = SelectionProjection::kHadamard;
  std::optional<SelectionScale> optimizer_scale;  // unset: adam after a warm-up, else none
};
struct SelectionLandmarkOptions {
  int32_t count = 4096;  // 1..1,000,000; cut to the pool
  LandmarkStrategy strategy = LandmarkStrategy::kUniform;
  uint64_t seed = 1;
};
struct SelectionPropagationOptions {
  RegressionKernel kernel = RegressionKernel::kRbf;
  double damping = 0.01;  // (0, 10]
  double sigma = 0;       // [0, 1e9]; 0: the median distance
};
struct SelectionWeightOptions {
  LambdaRule lambda_rule = LambdaRule::kSupport;
  double lambda = 0;                                         // (0, 1e12] with kFixed, which needs it
  double maximum = std::numeric_limits<double>::infinity();  // [1, 1e12]
  bool second_order = false;
};

struct SelectDataOptions {
  SelectionMethod method = SelectionMethod::kInfluence;
  std::string pool, target;  // required
  int64_t count = 10'000;    // 1..2^40; at most the pool
  SelectionWarmupOptions warmup;
  SelectionEmbeddingOptions embedding;
  SelectionGradientOptions gradients;
  SelectionLandmarkOptions landmarks;
  SelectionPropagationOptions propagation;
  SelectionRule rule = SelectionRule::kRoundRobin;
  SelectionWeightOptions weights;
  bool leak_test = false;
  int32_t sequence_length = 1024;  // 2..1,048,576
};

SelectDataOptions ParseSelectData(const v1::SelectDataSpec& spec, FieldErrors& errors);

}  // namespace trainyard::spec
