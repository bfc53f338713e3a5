// How a job's gradients travel: the section `communication` of a spec, typed and with its defaults. Free of protobuf,
// so that worker/comm may include it. Ranges are enforced by ParseCommunication and stated beside each field.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/time/time.h"

namespace trainyard::v1 {
class CommunicationSpec;
}  // namespace trainyard::v1

namespace trainyard::spec {

class FieldErrors;

// ---- codecs: how a tensor looks on the wire ----

// f32 as it is.
struct IdentityCodec {
  bool operator==(const IdentityCodec&) const = default;
};

enum class Rounding { kStochastic, kNearest };

// Minimum and step of a bucket, and a whole number of steps a value.
struct MaxminCodec {
  int32_t bits = 4;           // 1..8
  int32_t bucket_size = 512;  // 64..8192, a multiple of 8
  Rounding rounding = Rounding::kStochastic;
  bool operator==(const MaxminCodec&) const = default;
};

enum class LevelTable { kUniform, kExponential, kAdapted };
enum class LevelNorm { kL2, kLinf };

// Norm of a bucket; a sign and the index of a level a value. `adapted` begins with uniform levels.
struct LevelsCodec {
  LevelTable table = LevelTable::kAdapted;
  LevelNorm norm = LevelNorm::kLinf;
  int32_t bits = 4;           // 2..8, one of them the sign
  int32_t bucket_size = 512;  // 64..8192, a multiple of 8
  // Adapted only: the levels are fitted to the gradients of these steps (>= 0, increasing, at most 64), and of every
  // multiple of the interval (1..1,000,000,000).
  std::vector<int64_t> refit_steps = {0, 200, 1000, 5000};
  int64_t refit_interval_steps = 10'000;
  bool operator==(const LevelsCodec&) const = default;
};

// Signs, and the mean magnitude of a bucket.
struct SignMeanCodec {
  int32_t bucket_size = 512;  // 64..8192, a multiple of 8
  bool operator==(const SignMeanCodec&) const = default;
};

// The largest values and their places.
struct TopKCodec {
  double density = 0.01;  // (0, 0.5]: share of the values that travel
  bool operator==(const TopKCodec&) const = default;
};

// Two thin factors of a matrix (first dimension by the others); a whole exchange of its own.
struct PowerSgdCodec {
  int32_t rank = 4;            // 1..64
  int64_t start_step = 1000;   // 0..1,000,000,000; f32 before
  double min_compression = 2;  // [1, 1000]: matrices that shrink by less travel as f32
  bool operator==(const PowerSgdCodec&) const = default;
};

using CodecOptions = std::variant<IdentityCodec, MaxminCodec, LevelsCodec, SignMeanCodec, TopKCodec, PowerSgdCodec>;

// "maxmin" and so on: the name in the spec.
const char* NameOf(const CodecOptions& codec);

// ---- layer types ----

// The built-in types, told from the parameters' names (worker/comm/layer_types.h).
inline constexpr const char* kLayerTypes[] = {"embedding", "attention", "mlp",  "norm",
                                              "conv",      "linear",    "head", "other"};

struct LayerTypeOptions {
  std::string name;                   // letters, digits and _, at most 32; at most 32 types
  std::string match;                  // own types only: glob (* and ?) over parameter names, 1..200 characters
  std::optional<CodecOptions> codec;  // unset: communication.codec
  bool operator==(const LayerTypeOptions&) const = default;
};

// ---- the exchange ----

enum class ExchangeKind { kSra, kAllGather, kRing };

// Bits of each maxmin tensor by dynamic programming (L-GreCo, arXiv:2210.17357).
struct LgrecoOptions {
  double alpha = 1.0;             // (0, 10]: the error allowed, in units of the types' own bits' error
  int64_t interval_steps = 1000;  // 1..1,000,000,000
  int32_t window_steps = 10;      // 1..1000, <= interval_steps: gradients of so many last steps are added up
  int32_t bits_min = 2;           // 2..8
  int32_t bits_max = 8;           // bits_min..8
  bool operator==(const LgrecoOptions&) const = default;
};

enum class EntropyCoding { kNone, kHuffman };

struct CommunicationOptions {
  int64_t bucket_bytes = 16 << 20;  // 1 KiB..1 GiB
  ExchangeKind exchange = ExchangeKind::kSra;
  CodecOptions codec;                   // of every layer type without one of its own
  std::vector<LayerTypeOptions> types;  // by name
  int32_t phase2_bits = 8;              // 2..8, or 32 for f32; sra only
  bool error_feedback = false;          // power_sgd always has it
  int64_t min_elements = 1024;          // 16..1,000,000,000; smaller tensors, and vectors, travel as f32
  std::optional<LgrecoOptions> plan;    // of the maxmin tensors; others keep their codecs
  EntropyCoding entropy_coding = EntropyCoding::kNone;  // of maxmin and levels, on the way to the owner
  int64_t hash_check_interval_steps = 100;              // 0..1,000,000,000; 0: never
  absl::Duration timeout = absl::Seconds(120);          // 1 s..1 h

  // Whether any layer type has a codec that is not identity.
  bool HasCodecs() const;
  // All that ranks must agree on, as text: equal texts, equal exchanges.
  std::string Fingerprint() const;
};

// Adds all problems of the section to `errors`, whose path is the section's.
CommunicationOptions ParseCommunication(const v1::CommunicationSpec& spec, FieldErrors& errors);

}  // namespace trainyard::spec
