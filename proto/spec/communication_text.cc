#include <algorithm>
#include <variant>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "proto/spec/communication_options.h"

namespace trainyard::spec {
namespace {

struct Name {
  const char* operator()(const IdentityCodec&) const { return "identity"; }
  const char* operator()(const MaxminCodec&) const { return "maxmin"; }
  const char* operator()(const LevelsCodec&) const { return "levels"; }
  const char* operator()(const SignMeanCodec&) const { return "sign_mean"; }
  const char* operator()(const TopKCodec&) const { return "top_k"; }
  const char* operator()(const PowerSgdCodec&) const { return "power_sgd"; }
};

struct Text {
  std::string operator()(const IdentityCodec&) const { return "identity"; }
  std::string operator()(const MaxminCodec& codec) const {
    return absl::StrCat("maxmin ", codec.bits, " ", codec.bucket_size, " ", static_cast<int>(codec.rounding));
  }
  std::string operator()(const LevelsCodec& codec) const {
    return absl::StrCat("levels ", static_cast<int>(codec.table), " ", static_cast<int>(codec.norm), " ", codec.bits,
                        " ", codec.bucket_size, " ", absl::StrJoin(codec.refit_steps, ","), " ",
                        codec.refit_interval_steps);
  }
  std::string operator()(const SignMeanCodec& codec) const { return absl::StrCat("sign_mean ", codec.bucket_size); }
  std::string operator()(const TopKCodec& codec) const { return absl::StrCat("top_k ", codec.density); }
  std::string operator()(const PowerSgdCodec& codec) const {
    return absl::StrCat("power_sgd ", codec.rank, " ", codec.start_step, " ", codec.min_compression);
  }
};

}  // namespace

const char* NameOf(const CodecOptions& codec) {
  return std::visit(Name(), codec);
}

bool CommunicationOptions::HasCodecs() const {
  const auto is_coded = [](const CodecOptions& options) { return !std::holds_alternative<IdentityCodec>(options); };
  return is_coded(codec) || std::any_of(types.begin(), types.end(), [&](const LayerTypeOptions& type) {
           return type.codec && is_coded(*type.codec);
         });
}

std::string CommunicationOptions::Fingerprint() const {
  std::string text =
      absl::StrCat("bucket ", bucket_bytes, "; exchange ", static_cast<int>(exchange), "; codec ",
                   std::visit(Text(), codec), "; phase2 ", phase2_bits, "; feedback ", error_feedback, "; min ",
                   min_elements, "; entropy ", static_cast<int>(entropy_coding), "; hash ", hash_check_interval_steps);
  for (const LayerTypeOptions& type : types) {
    absl::StrAppend(&text, "; type ", type.name, " '", type.match, "' ",
                    type.codec ? std::visit(Text(), *type.codec) : "-");
  }
  if (plan) {
    absl::StrAppend(&text, "; lgreco ", plan->alpha, " ", plan->interval_steps, " ", plan->window_steps, " ",
                    plan->bits_min, " ", plan->bits_max);
  }
  return text;
}

}  // namespace trainyard::spec
