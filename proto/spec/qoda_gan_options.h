// The job kind qoda_gan, typed and with its defaults. Free of protobuf, so that worker/ may include it. Ranges are
// enforced by ParseQodaGan and stated beside each field.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "proto/spec/training_options.h"

namespace trainyard::v1 {
class QodaGanSpec;
}

namespace trainyard::spec {

// ---- networks ----

enum class GanNormKind { kNone, kGroup, kBatch };

struct Resnet32Options {
  int32_t filters = 128;  // 1..1024
  GanNormKind generator_norm = GanNormKind::kGroup;
};
struct Dcgan32Options {
  int32_t filters = 64;  // 1..1024
  GanNormKind generator_norm = GanNormKind::kGroup;
  GanNormKind discriminator_norm = GanNormKind::kNone;  // kNone with a gradient penalty
};
struct GanMlpOptions {
  int32_t hidden = 128;  // 1..8192
  int32_t layers = 3;    // 1..16 hidden ones
};
using GanNetworkOptions = std::variant<Resnet32Options, Dcgan32Options, GanMlpOptions>;

// ---- data ----

struct GanIdxOptions {
  std::string images;  // required
  std::string labels;  // empty: none
};
struct GanCifarOptions {
  std::vector<std::string> files;  // 1..64, required
  int32_t classes = 10;            // 10 or 100
};
struct GanPngOptions {
  std::string path;      // required
  int32_t channels = 3;  // 1 or 3
};
enum class MixtureLayout { kRing, kGrid };
struct GanMixtureOptions {
  MixtureLayout layout = MixtureLayout::kRing;
  double spacing = 1.0;  // (0, 1000]; radius of the ring, 0.5 if not given for the grid
  double stddev = 0.02;  // (0, 1000]
};
struct GanGaussianOptions {
  std::vector<double> mean = {0, 0};  // 1..4096 numbers of [-1e6, 1e6]
  double stddev = 1.0;                // (0, 1e6]
};
using GanDataOptions =
    std::variant<GanIdxOptions, GanCifarOptions, GanPngOptions, GanMixtureOptions, GanGaussianOptions>;

// Whether samples are images of 32 x 32.
bool HasImages(const GanDataOptions& data);

// ---- optimizer ----

enum class StepRule { kBase, kSeparated };

struct QodaDaOptions {
  StepRule lr_rule = StepRule::kBase;
  double q_hat = 0.25;    // (0, 0.25]; separated only
  double lr_scale = 1.0;  // (0, 1000]
};

enum class GameAdamForm { kOptimistic, kExtra, kPlain };

struct GameAdamOptions {
  GameAdamForm form = GameAdamForm::kOptimistic;
  double lr_d = 5e-4;  // (0, 1]
  double lr_g = 5e-5;  // (0, 1]
  double beta1 = 0.5;  // [0, 1)
  double beta2 = 0.9;  // [0, 1)
  double eps = 1e-8;   // (0, 1]
};
using GameOptimizerOptions = std::variant<GameAdamOptions, QodaDaOptions>;

// ---- the kind ----

enum class GeneratorWeights { kRaw, kEma, kAverage };

struct QodaGanOptions {
  GanNetworkOptions networks;  // required
  GanDataOptions data;         // required; images for resnet32 and dcgan32, points for mlp
  GameOptimizerOptions optimizer;
  int64_t updates = 500'000;                         // 1..1,000,000,000
  int32_t global_batch = 1024;                       // 1..1,048,576; a multiple of the number of ranks
  int32_t latent_dim = 128;                          // 1..4096
  double gp_lambda = 10;                             // [0, 1000]
  double clip = 0.01;                                // (0, 100]; only if gp_lambda is 0
  double ema = 0.9999;                               // [0, 1)
  bool ergodic_average = false;                      // true with qoda_da if not given
  GeneratorWeights scored = GeneratorWeights::kRaw;  // kAverage needs ergodic_average
  int64_t evaluation_interval = 1000;                // 0..1,000,000,000; 0: only at the end
  int64_t sample_interval = 1000;                    // 0..1,000,000,000; 0: only at the end
  int32_t evaluation_samples = 2048;                 // 64..100,000
  int32_t sample_count = 64;                         // 1..1024
  NanPolicy nan_policy = NanPolicy::kFail;
};

// Adds all problems of the section to `errors`, whose path is the section's. `world_size` is the number of ranks.
QodaGanOptions ParseQodaGan(const v1::QodaGanSpec& spec, int32_t world_size, FieldErrors& errors);

// What QODA rests on is that every worker's dual arrives unbiased and undelayed: with optimizer qoda_da, adds to
// `errors` (whose path is that of section `communication`) every biased codec, and error feedback.
void CheckQodaCommunication(const QodaGanOptions& options, const CommunicationOptions& communication,
                            FieldErrors& errors);

}  // namespace trainyard::spec
