#include "client/yaml_to_proto.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/duration.pb.h>
#include <google/protobuf/message.h>

#include <cmath>
#include <limits>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "client/duration_text.h"
#include "client/proto_names.h"
#include "proto/v1/job.pb.h"

namespace trainyard::client {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

std::string Join(const std::string& path, const std::string& name) {
  return path.empty() ? name : absl::StrCat(path, ".", name);
}

std::string Shown(const std::string& text) {
  constexpr size_t kLongest = 60;
  return text.size() <= kLongest ? absl::StrCat("'", text, "'") : absl::StrCat("'", text.substr(0, kLongest), "'...");
}

const char* KindOfNode(const YAML::Node& node) {
  switch (node.Type()) {
    case YAML::NodeType::Map:
      return "a mapping";
    case YAML::NodeType::Sequence:
      return "a list";
    case YAML::NodeType::Scalar:
      return "a value";
    default:
      return "nothing";
  }
}

// "16MiB" -> "16777216"; other texts unchanged.
std::string ExpandSize(const std::string& text) {
  absl::string_view number = text;
  int64_t unit = 0;
  if (absl::ConsumeSuffix(&number, "KiB")) unit = int64_t{1} << 10;
  if (absl::ConsumeSuffix(&number, "MiB")) unit = int64_t{1} << 20;
  if (absl::ConsumeSuffix(&number, "GiB")) unit = int64_t{1} << 30;
  int64_t value = 0;
  if (unit == 0 || !absl::SimpleAtoi(absl::StripAsciiWhitespace(number), &value)) return text;
  if (std::abs(value) > std::numeric_limits<int64_t>::max() / unit) return text;
  return absl::StrCat(value * unit);
}

bool IsDigits(absl::string_view text) {
  if (!text.empty() && (text[0] == '-' || text[0] == '+')) text.remove_prefix(1);
  if (text.empty()) return false;
  for (char c : text) {
    if (!absl::ascii_isdigit(c)) return false;
  }
  return true;
}

// Whole numbers, also as 1e6. Sets `problem` otherwise.
template <typename Int>
std::optional<Int> ParseWhole(const std::string& text, std::string* problem) {
  Int value = 0;
  if (absl::SimpleAtoi(text, &value)) return value;
  double real = 0;
  constexpr double kExact = 9007199254740992.0;  // 2^53
  const bool is_real = absl::SimpleAtod(text, &real) && std::isfinite(real);
  if (is_real && !IsDigits(text) && real == std::floor(real) && std::abs(real) <= kExact) {
    if (absl::SimpleAtoi(absl::StrCat(static_cast<int64_t>(real)), &value)) return value;
  }
  if (is_real && real == std::floor(real)) {
    *problem = absl::StrCat(text.substr(0, 60), " not in [", std::numeric_limits<Int>::min(), ", ",
                            std::numeric_limits<Int>::max(), "]");
  } else {
    *problem = absl::StrCat(Shown(text), " is not a whole number");
  }
  return std::nullopt;
}

// Alternatives that the bare name selects: fields of a oneof that are messages.
std::vector<std::string> NamedAlternatives(const google::protobuf::Descriptor& type) {
  std::vector<std::string> names;
  for (int i = 0; i < type.field_count(); ++i) {
    const FieldDescriptor* field = type.field(i);
    if (field->real_containing_oneof() != nullptr && field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      names.push_back(field->name());
    }
  }
  return names;
}

}  // namespace

void YamlToProto::Convert(const YAML::Node& node, Message* message) {
  sources_->SetRoot(LocationOf(node));
  Fill(node, "", message);
}

SourceLocation YamlToProto::LocationOf(const YAML::Node& node) const {
  const YAML::Mark mark = node.Mark();
  if (!options_.has_lines) return {options_.origin, 0, 0};
  if (mark.is_null()) return {options_.origin, 1, 1};
  return {options_.origin, mark.line + 1, mark.column + 1};
}

void YamlToProto::Problem(const std::string& path, const std::string& text) {
  problems_->push_back({sources_->Find(path), path, text});
  bad_paths_.insert(path);
}

void YamlToProto::Fill(const YAML::Node& node, const std::string& path, Message* message) {
  if (!node.IsDefined() || node.IsNull()) return;
  if (!node.IsMap()) {
    Problem(path, absl::StrCat("expected fields, got ", KindOfNode(node)));
    return;
  }
  const auto* type = message->GetDescriptor();
  std::map<std::string, SourceLocation> seen;
  std::map<const google::protobuf::OneofDescriptor*, std::string> chosen;
  for (const auto& entry : node) {
    if (!entry.first.IsScalar()) {
      sources_->Set(Join(path, "?"), LocationOf(entry.first));
      Problem(Join(path, "?"), absl::StrCat("a field's name must be a word, not ", KindOfNode(entry.first)));
      continue;
    }
    const std::string name = entry.first.Scalar();
    const std::string field_path = Join(path, name);
    const SourceLocation location = LocationOf(entry.first);
    const FieldDescriptor* field = type->FindFieldByName(name);
    if (field == nullptr && options_.json_names) field = type->FindFieldByCamelcaseName(name);
    if (field == nullptr) {
      const std::string closest = ClosestName(name, FieldNames(*type));
      problems_->push_back({location, Join(path, name.substr(0, 100)),
                            !closest.empty() ? absl::StrCat("unknown field, did you mean ", closest, "?")
                            : type->field_count() == 0
                                ? std::string("unknown field; there are none here")
                                : absl::StrCat("unknown field, known are ", absl::StrJoin(FieldNames(*type), ", "))});
      if (!closest.empty()) bad_paths_.insert(Join(path, closest));
      continue;
    }
    const auto [first, is_new] = seen.emplace(field->name(), location);
    if (!is_new) {
      problems_->push_back({location, field_path, absl::StrCat("given twice, first in line ", first->second.line)});
      continue;
    }
    if (const auto* oneof = field->real_containing_oneof()) {
      const auto [other, is_only] = chosen.emplace(oneof, field->name());
      if (!is_only) {
        problems_->push_back({location, field_path,
                              absl::StrCat("excludes ", other->second, ", given in line ", seen[other->second].line,
                                           ": only one ", oneof->name(), " may be given")});
        continue;
      }
    }
    const std::string real_path = Join(path, field->name());
    sources_->Set(real_path, location);
    FillField(entry.first, entry.second, real_path, field, message);
  }
}

void YamlToProto::FillField(const YAML::Node& key, const YAML::Node& value, const std::string& path,
                            const FieldDescriptor* field, Message* message) {
  const auto* reflection = message->GetReflection();
  if (field->is_map()) {
    FillMap(value, path, field, message);
  } else if (field->is_repeated()) {
    FillList(value, path, field, message);
  } else if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
    FillMessage(value, path, reflection->MutableMessage(message, field));
  } else {
    FillScalar(value, path, field, message);
  }
}

void YamlToProto::FillMap(const YAML::Node& value, const std::string& path, const FieldDescriptor* field,
                          Message* message) {
  if (value.IsNull()) return;
  if (!value.IsMap()) {
    Problem(path, absl::StrCat("expected key: value pairs, got ", KindOfNode(value)));
    return;
  }
  const FieldDescriptor* key_field = field->message_type()->map_key();
  const FieldDescriptor* value_field = field->message_type()->map_value();
  const auto* reflection = message->GetReflection();
  std::map<std::string, SourceLocation> seen;
  for (const auto& entry : value) {
    const std::string key = entry.first.IsScalar() ? entry.first.Scalar() : "?";
    const std::string entry_path = Join(path, key);
    const SourceLocation location = LocationOf(entry.first);
    const auto [first, is_new] = seen.emplace(key, location);
    if (!is_new) {
      problems_->push_back({location, entry_path, absl::StrCat("given twice, first in line ", first->second.line)});
      continue;
    }
    sources_->Set(entry_path, location);
    // An entry that is there already is only there because this is an override.
    Message* added = nullptr;
    for (int i = 0; i < reflection->FieldSize(*message, field); ++i) {
      Message* existing = reflection->MutableRepeatedMessage(message, field, i);
      if (existing->GetReflection()->GetString(*existing, key_field) == key) added = existing;
    }
    if (added == nullptr) added = reflection->AddMessage(message, field);
    FillScalar(entry.first, entry_path, key_field, added);
    if (value_field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      FillMessage(entry.second, entry_path, added->GetReflection()->MutableMessage(added, value_field));
    } else {
      FillScalar(entry.second, entry_path, value_field, added);
    }
  }
}

void YamlToProto::FillList(const YAML::Node& value, const std::string& path, const FieldDescriptor* field,
                           Message* message) {
  if (options_.is_override) message->GetReflection()->ClearField(message, field);
  if (value.IsNull()) return;
  if (!value.IsSequence()) {
    Problem(path, absl::StrCat("expected a list, got ", KindOfNode(value)));
    return;
  }
  for (size_t i = 0; i < value.size(); ++i) {
    const std::string item = absl::StrCat(path, "[", i, "]");
    sources_->Set(item, LocationOf(value[i]));
    if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      FillMessage(value[i], item, message->GetReflection()->AddMessage(message, field));
    } else {
      FillScalar(value[i], item, field, message);
    }
  }
}

void YamlToProto::FillMessage(const YAML::Node& value, const std::string& path, Message* message) {
  const auto* type = message->GetDescriptor();
  if (type == google::protobuf::Duration::descriptor()) {
    FillDuration(value, path, message);
    return;
  }
  if (!value.IsScalar()) {
    Fill(value, path, message);
    return;
  }
  if (type == v1::Dependency::descriptor() || type == v1::ArtifactRef::descriptor()) {
    message->GetReflection()->SetString(message, type->FindFieldByName("job"), value.Scalar());
    return;
  }
  const std::vector<std::string> names = NamedAlternatives(*type);
  for (const std::string& name : names) {
    if (value.Scalar() != name) continue;
    message->GetReflection()->MutableMessage(message, type->FindFieldByName(name));
    return;
  }
  if (names.empty()) {
    Problem(path, absl::StrCat("expected fields, got the value ", Shown(value.Scalar())));
    return;
  }
  const std::string closest = ClosestName(value.Scalar(), names);
  Problem(path, absl::StrCat(Shown(value.Scalar()), " is not one of ", absl::StrJoin(names, ", "),
                             closest.empty() ? "" : absl::StrCat("; did you mean ", closest, "?")));
}

void YamlToProto::FillDuration(const YAML::Node& value, const std::string& path, Message* message) {
  const auto duration = value.IsScalar() ? ParseDurationText(value.Scalar()) : std::nullopt;
  if (!duration.has_value()) {
    Problem(path, absl::StrCat(value.IsScalar() ? Shown(value.Scalar()) : KindOfNode(value),
                               " is not a duration such as 90s, 10m, 1h30m or a number of seconds"));
    return;
  }
  auto* out = static_cast<google::protobuf::Duration*>(message);
  const int64_t seconds = absl::ToInt64Seconds(*duration);
  out->set_seconds(seconds);
  out->set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(*duration - absl::Seconds(seconds))));
}

void YamlToProto::FillScalar(const YAML::Node& value, const std::string& path, const FieldDescriptor* field,
                             Message* message) {
  if (!value.IsScalar()) {
    Problem(path, absl::StrCat("expected one value, got ", KindOfNode(value)));
    return;
  }
  const auto* reflection = message->GetReflection();
  const std::string& text = value.Scalar();
  const auto put = [&](auto add, auto set, auto item) {
    if (field->is_repeated()) {
      (reflection->*add)(message, field, item);
    } else {
      (reflection->*set)(message, field, item);
    }
  };
  using R = google::protobuf::Reflection;
  const std::string number = absl::EndsWith(field->name(), "_bytes") ? ExpandSize(text) : text;
  std::string problem;
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      if (const auto item = ParseWhole<int32_t>(number, &problem)) put(&R::AddInt32, &R::SetInt32, *item);
      break;
    case FieldDescriptor::CPPTYPE_INT64:
      if (const auto item = ParseWhole<int64_t>(number, &problem)) put(&R::AddInt64, &R::SetInt64, *item);
      break;
    case FieldDescriptor::CPPTYPE_UINT32:
      if (const auto item = ParseWhole<uint32_t>(number, &problem)) put(&R::AddUInt32, &R::SetUInt32, *item);
      break;
    case FieldDescriptor::CPPTYPE_UINT64:
      if (const auto item = ParseWhole<uint64_t>(number, &problem)) put(&R::AddUInt64, &R::SetUInt64, *item);
      break;
    case FieldDescriptor::CPPTYPE_DOUBLE:
    case FieldDescriptor::CPPTYPE_FLOAT: {
      double item = 0;
      if (!absl::SimpleAtod(text, &item) || !std::isfinite(item)) {
        problem = absl::StrCat(Shown(text), " is not a number");
      } else if (field->cpp_type() == FieldDescriptor::CPPTYPE_FLOAT) {
        put(&R::AddFloat, &R::SetFloat, static_cast<float>(item));
      } else {
        put(&R::AddDouble, &R::SetDouble, item);
      }
      break;
    }
    case FieldDescriptor::CPPTYPE_BOOL:
      if (absl::EqualsIgnoreCase(text, "true") || absl::EqualsIgnoreCase(text, "false")) {
        put(&R::AddBool, &R::SetBool, absl::EqualsIgnoreCase(text, "true"));
      } else {
        problem = absl::StrCat(Shown(text), " is not true or false");
      }
      break;
    case FieldDescriptor::CPPTYPE_ENUM: {
      const auto* item = FindEnumValue(*field->enum_type(), text);
      if (item != nullptr) {
        put(&R::AddEnum, &R::SetEnum, item);
        break;
      }
      const auto names = ShortEnumNames(*field->enum_type());
      const std::string closest = ClosestName(text, names);
      problem = absl::StrCat(Shown(text), " is not one of ", absl::StrJoin(names, ", "),
                             closest.empty() ? "" : absl::StrCat("; did you mean ", closest, "?"));
      break;
    }
    case FieldDescriptor::CPPTYPE_STRING:
      put(&R::AddString, &R::SetString, text);
      break;
    case FieldDescriptor::CPPTYPE_MESSAGE:
      break;  // FillMessage has it
  }
  if (!problem.empty()) Problem(path, problem);
}

}  // namespace trainyard::client
