#include "worker/model/packed_config.h"

#include <cstdint>
#include <initializer_list>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "nlohmann/json.hpp"

namespace trainyard::model {
namespace {

using Json = nlohmann::ordered_json;
using spec::LinearQuest;

constexpr char kSection[] = "quantization_config";

template <typename Enum>
struct Named {
  Enum value;
  const char* name;
};
constexpr Named<LinearQuest::Grid> kGrids[] = {{LinearQuest::Grid::kNone, "none"},
                                               {LinearQuest::Grid::kInt, "int"},
                                               {LinearQuest::Grid::kFp4, "fp4_e2m1"},
                                               {LinearQuest::Grid::kInt24, "int_2_4"}};
constexpr Named<LinearQuest::Projection> kProjections[] = {{LinearQuest::Projection::kMseClip, "mse_clip"},
                                                           {LinearQuest::Projection::kAbsMax, "abs_max"},
                                                           {LinearQuest::Projection::kLsq, "lsq"}};

template <typename Enum, size_t kCount>
const char* NameOf(const Named<Enum> (&table)[kCount], Enum value) {
  for (const Named<Enum>& entry : table) {
    if (entry.value == value) return entry.name;
  }
  TY_CHECK(false);
  return "";
}

absl::StatusOr<Json> Parse(const std::string& config_json, const std::string& path) {
  Json root = Json::parse(config_json, nullptr, /*allow_exceptions=*/false);
  if (!root.is_object()) return absl::InvalidArgumentError(absl::StrCat(path, ": not a JSON object"));
  return root;
}

// Fields of quantization_config; the first problem is kept.
class Reader {
 public:
  Reader(const Json& section, const std::string& path) : section_(section), path_(path) {}

  int Integer(const char* name, std::initializer_list<int> allowed) {
    const Json* const value = Find(name);
    if (value == nullptr) return 0;
    if (value->is_number_integer()) {
      for (const int number : allowed) {
        if (*value == number) return number;
      }
    }
    Refuse(name, absl::StrCat(Text(*value), " is not one of ", absl::StrJoin(allowed, ", ")));
    return 0;
  }

  template <typename Enum, size_t kCount>
  Enum Choice(const char* name, const Named<Enum> (&table)[kCount]) {
    const Json* const value = Find(name);
    if (value == nullptr) return table[0].value;
    std::string allowed;
    for (const Named<Enum>& entry : table) {
      if (value->is_string() && *value == entry.name) return entry.value;
      absl::StrAppend(&allowed, allowed.empty() ? "" : ", ", entry.name);
    }
    Refuse(name, absl::StrCat(Text(*value), " is not one of ", allowed));
    return table[0].value;
  }

  void Refuse(const char* name, const std::string& problem) {
    if (!status_.ok()) return;
    status_ = absl::InvalidArgumentError(absl::StrCat(path_, ": ", kSection, ".", name, ": ", problem));
  }
  const absl::Status& status() const { return status_; }

 private:
  const Json* Find(const char* name) {
    if (section_.contains(name)) return &section_.at(name);
    Refuse(name, "is missing");
    return nullptr;
  }
  static std::string Text(const Json& value) { return value.dump(-1, ' ', false, Json::error_handler_t::replace); }

  const Json& section_;
  const std::string path_;
  absl::Status status_;
};

}  // namespace

absl::StatusOr<std::string> QuantizationMethod(const std::string& config_json, const std::string& path) {
  TY_ASSIGN_OR_RETURN(const Json root, Parse(config_json, path));
  if (!root.contains(kSection) || root.at(kSection).is_null()) return std::string();
  const Json& section = root.at(kSection);
  if (!section.is_object() || !section.contains("quant_method") || !section.at("quant_method").is_string()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", kSection, ": has no quant_method"));
  }
  return section.at("quant_method").get<std::string>();
}

std::string AddQuantization(const std::string& config_json, const LinearQuest& options) {
  TY_CHECK(options.weight_grid != LinearQuest::Grid::kNone);
  const absl::StatusOr<Json> parsed = Parse(config_json, "config.json");
  TY_CHECK_OK(parsed);
  Json root = *parsed;
  Json section;
  section["quant_method"] = kPackedMethod;
  section["version"] = kPackedVersion;
  section["weight_grid"] = NameOf(kGrids, options.weight_grid);
  section["weight_bits"] = PackedCodeBits(options);
  section["activation_grid"] = NameOf(kGrids, options.activation_grid);
  section["activation_bits"] = options.activation_grid == LinearQuest::Grid::kInt ? options.activation_bits : 4;
  section["hadamard_dim"] = options.hadamard_dim;
  section["projection"] = NameOf(kProjections, options.projection);
  root[kSection] = section;
  return root.dump(2) + "\n";
}

absl::StatusOr<LinearQuest> ParseQuantization(const std::string& config_json, const std::string& path) {
  TY_ASSIGN_OR_RETURN(const std::string method, QuantizationMethod(config_json, path));
  if (method != kPackedMethod) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", kSection, ".quant_method: \"", method,
                                                   "\" is not known; expected \"", kPackedMethod, "\""));
  }
  TY_ASSIGN_OR_RETURN(const Json root, Parse(config_json, path));
  Reader reader(root.at(kSection), path);
  reader.Integer("version", {kPackedVersion});
  TY_RETURN_IF_ERROR(reader.status());  // another version may have other fields
  LinearQuest options;
  options.weight_grid = reader.Choice("weight_grid", kGrids);
  options.weight_bits = reader.Integer("weight_bits", {1, 2, 3, 4, 5, 6, 7, 8});
  options.activation_grid = reader.Choice("activation_grid", kGrids);
  options.activation_bits = reader.Integer("activation_bits", {1, 2, 3, 4, 5, 6, 7, 8});
  options.hadamard_dim = reader.Integer("hadamard_dim", {0, 16, 32, 64, 128});
  options.projection = reader.Choice("projection", kProjections);
  if (options.weight_grid == LinearQuest::Grid::kNone) reader.Refuse("weight_grid", "none has no codes");
  if (options.activation_grid == LinearQuest::Grid::kInt24) {
    reader.Refuse("activation_grid", "int_2_4 is for weights only");
  }
  const auto is_integer = [](LinearQuest::Grid grid) {
    return grid == LinearQuest::Grid::kInt || grid == LinearQuest::Grid::kNone;
  };
  if (options.projection == LinearQuest::Projection::kLsq &&
      !(is_integer(options.weight_grid) && is_integer(options.activation_grid))) {
    reader.Refuse("projection", "lsq is for the grids int and none only");
  }
  TY_RETURN_IF_ERROR(reader.status());
  return options;
}

}  // namespace trainyard::model
