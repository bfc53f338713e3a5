#include "proto/spec/communication_options.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "proto/spec/choice.h"
#include "proto/spec/durations.h"
#include "proto/spec/field_errors.h"
#include "proto/v1/job.pb.h"

namespace trainyard::spec {
namespace {

constexpr int64_t kMaxSteps = 1'000'000'000;
constexpr int kMaxTypes = 32;
constexpr size_t kMaxTypeName = 32;
constexpr size_t kMaxPattern = 200;
constexpr int kMaxRefitSteps = 64;

int32_t ParseBucketSize(int32_t size, FieldErrors& errors) {
  const int32_t in_range = errors.InRange("bucket_size", size, 64, 8192);
  if (in_range % 8 != 0) errors.Add("bucket_size", absl::StrCat(size, " is not a multiple of 8 in [64, 8192]"));
  return in_range / 8 * 8;
}

MaxminCodec ParseMaxmin(const v1::CodecMaxmin& spec, FieldErrors& errors) {
  MaxminCodec codec;
  if (spec.has_bits()) codec.bits = errors.InRange("bits", spec.bits(), 1, 8);
  if (spec.has_bucket_size()) codec.bucket_size = ParseBucketSize(spec.bucket_size(), errors);
  codec.rounding =
      Choose<v1::CodecMaxmin::Rounding, Rounding>(errors, "rounding", spec.rounding(),
                                                  {{v1::CodecMaxmin::ROUNDING_STOCHASTIC, Rounding::kStochastic},
                                                   {v1::CodecMaxmin::ROUNDING_NEAREST, Rounding::kNearest}});
  return codec;
}

LevelsCodec ParseLevels(const v1::CodecLevels& spec, FieldErrors& errors) {
  LevelsCodec codec;
  codec.table =
      Choose<v1::CodecLevels::Table, LevelTable>(errors, "table", spec.table(),
                                                 {{v1::CodecLevels::TABLE_ADAPTED, LevelTable::kAdapted},
                                                  {v1::CodecLevels::TABLE_UNIFORM, LevelTable::kUniform},
                                                  {v1::CodecLevels::TABLE_EXPONENTIAL, LevelTable::kExponential}});
  codec.norm = Choose<v1::CodecLevels::Norm, LevelNorm>(
      errors, "norm", spec.norm(),
      {{v1::CodecLevels::NORM_LINF, LevelNorm::kLinf}, {v1::CodecLevels::NORM_L2, LevelNorm::kL2}});
  if (spec.has_bits()) codec.bits = errors.InRange("bits", spec.bits(), 2, 8);
  if (spec.has_bucket_size()) codec.bucket_size = ParseBucketSize(spec.bucket_size(), errors);
  if (spec.refit_steps_size() > 0) {
    codec.refit_steps.assign(spec.refit_steps().begin(), spec.refit_steps().end());
    if (spec.refit_steps_size() > kMaxRefitSteps) {
      errors.Add("refit_steps", absl::StrCat(spec.refit_steps_size(), " steps; at most ", kMaxRefitSteps));
    }
    for (int i = 0; i < spec.refit_steps_size(); ++i) {
      const std::string item = absl::StrCat("refit_steps[", i, "]");
      errors.InRange(item, spec.refit_steps(i), int64_t{0}, kMaxSteps);
      if (i > 0 && spec.refit_steps(i) <= spec.refit_steps(i - 1)) {
        errors.Add(item, absl::StrCat(spec.refit_steps(i), " is not above ", spec.refit_steps(i - 1), " before it"));
      }
    }
  }
  if (spec.has_refit_interval_steps()) {
    codec.refit_interval_steps = errors.InRange("refit_interval_steps", spec.refit_interval_steps(), 1, kMaxSteps);
  }
  if (codec.table != LevelTable::kAdapted) {
    if (spec.refit_steps_size() > 0) errors.Add("refit_steps", "has an effect with table adapted only");
    if (spec.has_refit_interval_steps()) errors.Add("refit_interval_steps", "has an effect with table adapted only");
  }
  return codec;
}

PowerSgdCodec ParsePowerSgd(const v1::CodecPowerSgd& spec, FieldErrors& errors) {
  PowerSgdCodec codec;
  if (spec.has_rank()) codec.rank = errors.InRange("rank", spec.rank(), 1, 64);
  if (spec.has_start_step()) codec.start_step = errors.InRange("start_step", spec.start_step(), 0, kMaxSteps);
  if (spec.has_min_compression()) {
    codec.min_compression = errors.InRange("min_compression", spec.min_compression(), 1, 1000);
  }
  return codec;
}

CodecOptions ParseCodec(const v1::Codec& spec, FieldErrors& errors) {
  switch (spec.kind_case()) {
    case v1::Codec::kMaxmin: {
      FieldErrors in = errors.In("maxmin");
      return ParseMaxmin(spec.maxmin(), in);
    }
    case v1::Codec::kLevels: {
      FieldErrors in = errors.In("levels");
      return ParseLevels(spec.levels(), in);
    }
    case v1::Codec::kSignMean: {
      SignMeanCodec codec;
      FieldErrors in = errors.In("sign_mean");
      if (spec.sign_mean().has_bucket_size()) codec.bucket_size = ParseBucketSize(spec.sign_mean().bucket_size(), in);
      return codec;
    }
    case v1::Codec::kTopK: {
      TopKCodec codec;
      FieldErrors in = errors.In("top_k");
      if (spec.top_k().has_density()) codec.density = in.InRangeAbove("density", spec.top_k().density(), 0, 0.5);
      return codec;
    }
    case v1::Codec::kPowerSgd: {
      FieldErrors in = errors.In("power_sgd");
      return ParsePowerSgd(spec.power_sgd(), in);
    }
    case v1::Codec::kIdentity:
    case v1::Codec::KIND_NOT_SET:
      break;
  }
  return IdentityCodec{};
}

bool IsBuiltIn(absl::string_view name) {
  return std::find(std::begin(kLayerTypes), std::end(kLayerTypes), name) != std::end(kLayerTypes);
}

std::vector<LayerTypeOptions> ParseTypes(const v1::CommunicationSpec& spec, FieldErrors& errors) {
  std::vector<LayerTypeOptions> types;
  for (const auto& [name, type] : spec.types()) {
    FieldErrors in = errors.In(absl::StrCat("types.", name));
    const bool is_word =
        !name.empty() && name.size() <= kMaxTypeName && std::all_of(name.begin(), name.end(), [](char c) {
          return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_';
        });
    if (!is_word) in.Add("", absl::StrCat("a type's name has 1 to ", kMaxTypeName, " letters, digits and _"));
    LayerTypeOptions parsed;
    parsed.name = name;
    parsed.match = type.match();
    if (type.has_codec()) {
      FieldErrors codec = in.In("codec");
      parsed.codec = ParseCodec(type.codec(), codec);
    }
    if (IsBuiltIn(name)) {
      if (!type.match().empty()) {
        in.Add("match", absl::StrCat(name,
                                     " is a built-in type, which tells its parameters by itself; choose another "
                                     "name for a type with a pattern"));
      }
      if (!type.has_codec()) in.Add("codec", "missing: an entry of a built-in type gives its codec");
    } else if (type.match().empty()) {
      in.Add("match", absl::StrCat("missing: an own type needs a pattern; built-in types are ",
                                   absl::StrJoin(kLayerTypes, ", ")));
    } else if (type.match().size() > kMaxPattern) {
      in.Add("match", absl::StrCat(type.match().size(), " characters; at most ", kMaxPattern));
    }
    types.push_back(std::move(parsed));
  }
  std::sort(types.begin(), types.end(),
            [](const LayerTypeOptions& a, const LayerTypeOptions& b) { return a.name < b.name; });
  if (spec.types_size() > kMaxTypes) {
    errors.Add("types", absl::StrCat(spec.types_size(), " types; at most ", kMaxTypes));
  }
  return types;
}

LgrecoOptions ParseLgreco(const v1::Lgreco& spec, FieldErrors& errors) {
  LgrecoOptions plan;
  if (spec.has_alpha()) plan.alpha = errors.InRangeAbove("alpha", spec.alpha(), 0, 10);
  if (spec.has_interval_steps()) {
    plan.interval_steps = errors.InRange("interval_steps", spec.interval_steps(), 1, kMaxSteps);
  }
  if (spec.has_window_steps()) {
    plan.window_steps = errors.InRange("window_steps", spec.window_steps(), 1, 1000);
    if (plan.window_steps > plan.interval_steps) {
      errors.Add("window_steps",
                 absl::StrCat(plan.window_steps, " is more than interval_steps, which is ", plan.interval_steps));
    }
  } else {
    plan.window_steps = static_cast<int32_t>(std::min<int64_t>(plan.window_steps, plan.interval_steps));
  }
  if (spec.has_bits_min()) plan.bits_min = errors.InRange("bits_min", spec.bits_min(), 2, 8);
  if (spec.has_bits_max()) plan.bits_max = errors.InRange("bits_max", spec.bits_max(), 2, 8);
  if (plan.bits_min > plan.bits_max) {
    errors.Add("bits_min", absl::StrCat(plan.bits_min, " is more than bits_max, which is ", plan.bits_max));
  }
  return plan;
}

// What one codec asks of the rest of the section; `path` is where it was given.
void CheckCodec(const CodecOptions& codec, const std::string& path, const v1::CommunicationSpec& spec,
                const CommunicationOptions& options, FieldErrors& errors) {
  const auto* maxmin = std::get_if<MaxminCodec>(&codec);
  const bool is_biased = std::holds_alternative<SignMeanCodec>(codec) || std::holds_alternative<TopKCodec>(codec) ||
                         (maxmin != nullptr && maxmin->rounding == Rounding::kNearest);
  if (is_biased && !options.error_feedback) {
    const char* const what = maxmin != nullptr ? "rounding nearest" : NameOf(codec);
    errors.Add(path, absl::StrCat(what, " is biased: it needs communication.error_feedback: true"));
  }
  if (maxmin != nullptr && maxmin->bits == 1 && options.error_feedback) {
    errors.Add(path,
               "maxmin with 1 bit loses more than the gradient itself, so error feedback diverges; take sign_mean");
  }
  if (maxmin != nullptr && options.plan && options.plan->bits_min <= options.plan->bits_max &&
      !errors.HasProblem(absl::StrCat(path, ".maxmin.bits")) &&
      (maxmin->bits < options.plan->bits_min || maxmin->bits > options.plan->bits_max)) {
    errors.Add(path,
               absl::StrCat("maxmin.bits: ", maxmin->bits, " not in [", options.plan->bits_min, ", ",
                            options.plan->bits_max, "], the range of plan.lgreco, which takes it as its measure"));
  }
  if (std::holds_alternative<PowerSgdCodec>(codec)) {
    if (path != "codec") {
      errors.Add(path, "power_sgd is an exchange of all tensors; give it as communication.codec");
      return;
    }
    if (spec.types_size() > 0) errors.Add("types", "cannot be mixed with power_sgd");
    if (spec.exchange() != v1::CommunicationSpec::EXCHANGE_UNSPECIFIED) {
      errors.Add("exchange", "has no effect with power_sgd, which is an exchange of its own");
    }
    if (spec.has_error_feedback() && !spec.error_feedback()) {
      errors.Add("error_feedback", "false: power_sgd is biased and always has it");
    }
  }
}

void CheckRelations(const v1::CommunicationSpec& spec, const CommunicationOptions& options, FieldErrors& errors) {
  CheckCodec(options.codec, "codec", spec, options, errors);
  bool has_entropy =
      std::holds_alternative<MaxminCodec>(options.codec) || std::holds_alternative<LevelsCodec>(options.codec);
  bool has_maxmin = std::holds_alternative<MaxminCodec>(options.codec);
  bool is_coded = !std::holds_alternative<IdentityCodec>(options.codec);
  for (const LayerTypeOptions& type : options.types) {
    if (!type.codec) continue;
    CheckCodec(*type.codec, absl::StrCat("types.", type.name, ".codec"), spec, options, errors);
    has_maxmin |= std::holds_alternative<MaxminCodec>(*type.codec);
    has_entropy |= std::holds_alternative<MaxminCodec>(*type.codec) || std::holds_alternative<LevelsCodec>(*type.codec);
    is_coded |= !std::holds_alternative<IdentityCodec>(*type.codec);
  }
  if (options.plan && !has_maxmin) errors.Add("plan", "lgreco chooses bits of maxmin, which no codec here is");
  if (options.entropy_coding == EntropyCoding::kHuffman && !has_entropy) {
    errors.Add("entropy_coding", "huffman codes the levels of maxmin and levels, which no codec here is");
  }
  if (options.error_feedback && !is_coded) errors.Add("error_feedback", "has no effect: no codec here loses anything");
  if (spec.has_phase2_bits() && options.exchange != ExchangeKind::kSra) {
    errors.Add("phase2_bits", "has an effect with exchange sra only");
  }
}

}  // namespace

CommunicationOptions ParseCommunication(const v1::CommunicationSpec& spec, FieldErrors& errors) {
  CommunicationOptions options;
  if (spec.has_bucket_bytes()) {
    options.bucket_bytes = errors.InRange("bucket_bytes", spec.bucket_bytes(), int64_t{1} << 10, int64_t{1} << 30);
  }
  options.exchange = Choose<v1::CommunicationSpec::Exchange, ExchangeKind>(
      errors, "exchange", spec.exchange(),
      {{v1::CommunicationSpec::EXCHANGE_SRA, ExchangeKind::kSra},
       {v1::CommunicationSpec::EXCHANGE_ALLGATHER, ExchangeKind::kAllGather},
       {v1::CommunicationSpec::EXCHANGE_RING, ExchangeKind::kRing}});
  FieldErrors codec = errors.In("codec");
  options.codec = ParseCodec(spec.codec(), codec);
  options.types = ParseTypes(spec, errors);
  if (spec.has_phase2_bits()) {
    options.phase2_bits = spec.phase2_bits();
    if (options.phase2_bits != 32 && (options.phase2_bits < 2 || options.phase2_bits > 8)) {
      errors.Add("phase2_bits", absl::StrCat(options.phase2_bits, " not in [2, 8], and not 32"));
      options.phase2_bits = 8;
    }
  }
  options.error_feedback = spec.error_feedback();
  if (spec.has_min_elements()) {
    options.min_elements = errors.InRange("min_elements", spec.min_elements(), 16, 1'000'000'000);
  }
  if (spec.has_plan()) {
    FieldErrors lgreco = errors.In("plan.lgreco");
    options.plan = ParseLgreco(spec.plan().lgreco(), lgreco);
  }
  options.entropy_coding = Choose<v1::CommunicationSpec::EntropyCoding, EntropyCoding>(
      errors, "entropy_coding", spec.entropy_coding(),
      {{v1::CommunicationSpec::ENTROPY_CODING_NONE, EntropyCoding::kNone},
       {v1::CommunicationSpec::ENTROPY_CODING_HUFFMAN, EntropyCoding::kHuffman}});
  if (spec.has_hash_check_interval_steps()) {
    options.hash_check_interval_steps =
        errors.InRange("hash_check_interval_steps", spec.hash_check_interval_steps(), 0, kMaxSteps);
  }
  if (spec.has_timeout()) {
    options.timeout = DurationInRange(errors, "timeout", spec.timeout(), absl::Seconds(1), absl::Hours(1));
  }
  CheckRelations(spec, options, errors);
  if (std::holds_alternative<PowerSgdCodec>(options.codec)) options.error_feedback = true;
  return options;
}

}  // namespace trainyard::spec
