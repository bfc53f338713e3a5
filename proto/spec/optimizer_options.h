// The optimizers of the language-model kinds as plain values with their defaults. Ranges are enforced by the parser in
// optimizer_options.cc and are stated here beside each field. No protobuf in this header.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

namespace trainyard::v1 {
class Optimizer;
}

namespace trainyard::spec {

class FieldErrors;

enum class MomentType { kFp32, kBf16, kE4M3 };

struct AdamWOptions {
  double learning_rate = 3e-4;  // (0, 10]
  double beta1 = 0.9;           // [0, 1)
  double beta2 = 0.95;          // [0, 1)
  double epsilon = 1e-8;        // (0, 1]
  double weight_decay = 0.1;    // [0, 10]; decoupled
  MomentType first_moment = MomentType::kFp32;
  MomentType second_moment = MomentType::kFp32;  // not kE4M3
};

struct SgdOptions {
  double learning_rate = 0.1;  // (0, 100]
  double momentum = 0.9;       // [0, 1)
  bool nesterov = false;       // needs momentum > 0
  double weight_decay = 0.0;   // [0, 10]
};

struct EcoOptions {
  enum class Form { kAdamW, kSgdm, kSgdmExact };
  enum class WeightFormat { kE4M3, kInt4 };
  enum class Granularity { kRow, kGroup32, kGroup128, kTensor };
  enum class Rounding { kStochastic, kNearest };

  Form form = Form::kAdamW;
  double learning_rate = 3e-4;  // (0, 10]; 0.1 for the SGDM forms
  WeightFormat weight_format = WeightFormat::kE4M3;
  Granularity scale_granularity = Granularity::kRow;  // kGroup128 if the format is kInt4
  Rounding rounding = Rounding::kStochastic;
  bool error_injection = true;                   // false is the naive baseline; not with kSgdmExact
  bool decay_correction = false;                 // kAdamW only
  MomentType first_moment = MomentType::kFp32;   // not kE4M3
  MomentType second_moment = MomentType::kFp32;  // not kE4M3; kAdamW only
  double beta1 = 0.9;                            // (0, 1); the momentum of the SGDM forms
  double beta2 = 0.98;                           // (0, 1); kAdamW only
  double epsilon = 1e-9;                         // (0, 1]; kAdamW only
  double weight_decay = 0.1;                     // [0, 10]; kAdamW only (0 for the SGDM forms)
  double min_learning_rate = 1e-9;               // (0, 1]
  std::vector<std::string> quantize;             // patterns of parameter names; empty: all block matrices
};

struct SubspaceOptions {
  enum class Basis { kDct2, kDct3, kRandom };
  enum class Similarity { kAuto, kGemm, kFft };  // kFft: kDct2 only
  enum class Norm { kL1, kL2 };

  struct LayerRank {
    std::string pattern;  // of parameter names, 1..200 characters
    int32_t rank = 0;     // as `rank`
  };

  int32_t rank = 256;  // 1..65,536; at most the smaller side of a matrix
  Basis basis = Basis::kDct2;
  Similarity similarity = Similarity::kAuto;
  Norm norm = Norm::kL1;
  int32_t full_rank_min_dim = 32'000;  // 2..16,777,216
  // At most 64; instead of `rank`, that of the first whose pattern a name matches.
  std::vector<LayerRank> layer_ranks = {};
};

struct DctAdamWOptions {
  enum class ErrorFeedback { kNone, kInt4, kInt8, kFull };

  double learning_rate = 3e-4;  // (0, 10]
  SubspaceOptions subspace;
  int32_t update_gap = 1;  // 1..1,000,000
  bool rotate = true;
  ErrorFeedback error_feedback = ErrorFeedback::kInt8;
  double beta1 = 0.9;         // [0, 1)
  double beta2 = 0.999;       // [0, 1)
  double epsilon = 1e-8;      // (0, 1]
  double weight_decay = 0.0;  // [0, 10]
};

struct TrionOptions {
  enum class Coefficients { kFixed, kScheduled };
  enum class UpdateScale { kKj, kNone, kKimi, kDion };

  double learning_rate = 0.01;  // (0, 10]
  SubspaceOptions subspace;
  double mu = 0.95;                 // [0, 1)
  int32_t newton_schulz_steps = 5;  // 1..20; at most 5 with kScheduled
  Coefficients coefficients = Coefficients::kFixed;
  UpdateScale update_scale = UpdateScale::kKj;
  double weight_decay = 0.01;        // [0, 10]
  double adam_learning_rate = 3e-4;  // (0, 10]
  double adam_beta1 = 0.9;           // [0, 1)
  double adam_beta2 = 0.95;          // [0, 1)
  double adam_epsilon = 1e-10;       // (0, 1]
};

struct ElsaOptions {
  enum class Pattern { kUnstructured, k2To4, k4To8 };
  enum class Schedule { kConstant, kLinear, kCosine, kExponential };
  enum class Projection { kFisher, kMagnitude };
  enum class Scope { kTensor, kModel };
  enum class DualType { kFp32, kBf16, kE4M3, kE5M2 };
  enum class StateLayout { kMerged, kSeparate };
  enum class Moments { kFp32, kInt8 };

  double learning_rate = 2e-4;  // (0, 10]
  double sparsity = 0.9;        // [0, 1), read in parts per million; 0.5 with a pattern N:M
  Pattern pattern = Pattern::kUnstructured;
  int32_t interval = 32;  // 1..1,000,000, at most training.steps
  double lambda = 0.01;   // (0, 1000]
  Schedule lambda_schedule = Schedule::kConstant;
  double lambda_init = 0;  // [0, 1000]; not with kConstant
  Projection projection = Projection::kFisher;
  Scope scope = Scope::kTensor;        // kModel with kUnstructured only
  DualType z_dtype = DualType::kFp32;  // with kMerged the same as u_dtype
  DualType u_dtype = DualType::kFp32;
  StateLayout state_layout = StateLayout::kMerged;
  Moments moments = Moments::kFp32;
  double beta1 = 0.9;       // [0, 1)
  double beta2 = 0.95;      // [0, 1)
  double epsilon = 1e-8;    // (0, 1]
  double weight_decay = 0;  // [0, 10]
  bool lambda_divide_by_world = false;
  bool bias_correction = false;      // of the score; changes no order inside a tensor
  std::vector<std::string> exclude;  // patterns of block matrices that are not pruned
};

using OptimizerOptions = std::variant<AdamWOptions, SgdOptions, EcoOptions, DctAdamWOptions, TrionOptions, ElsaOptions>;

// Adds all problems to `errors`, whose path is that of the message.
OptimizerOptions ParseOptimizer(const v1::Optimizer& spec, FieldErrors& errors);

}  // namespace trainyard::spec
