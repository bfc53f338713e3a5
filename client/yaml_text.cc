#include "client/yaml_text.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/duration.pb.h>
#include <google/protobuf/message.h>
#include <google/protobuf/timestamp.pb.h>
#include <google/protobuf/util/time_util.h>

#include <algorithm>
#include <map>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/duration_text.h"
#include "client/proto_names.h"

namespace trainyard::client {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

// Plain if every YAML reader takes it for a string; else double-quoted.
std::string Quoted(const std::string& text) {
  const auto is_plain = [](char c) { return absl::ascii_isalnum(c) || c == '_' || c == '-' || c == '/' || c == '.'; };
  static const std::vector<std::string> kWords = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"};
  const bool is_word = std::find(kWords.begin(), kWords.end(), absl::AsciiStrToLower(text)) != kWords.end();
  if (!text.empty() && absl::ascii_isalpha(text[0]) && std::all_of(text.begin(), text.end(), is_plain) && !is_word) {
    double number = 0;
    if (!absl::SimpleAtod(text, &number)) return text;  // "inf", "nan"
  }
  std::string out = "\"";
  for (const unsigned char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (c < 0x20 || c == 0x7f) {
      absl::StrAppendFormat(&out, "\\x%02x", c);
    } else {
      out += static_cast<char>(c);
    }
  }
  return out + "\"";
}

// Shortest text that reads back as the same number.
std::string Number(double value) {
  for (int digits : {6, 15, 17}) {
    std::string text = absl::StrFormat("%.*g", digits, value);
    double back = 0;
    if (absl::SimpleAtod(text, &back) && back == value) return text;
  }
  return absl::StrCat(value);
}

std::string Scalar(const Message& message, const FieldDescriptor* field, int index) {
  const auto* r = message.GetReflection();
  const bool repeated = field->is_repeated();
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return absl::StrCat(repeated ? r->GetRepeatedInt32(message, field, index) : r->GetInt32(message, field));
    case FieldDescriptor::CPPTYPE_INT64:
      return absl::StrCat(repeated ? r->GetRepeatedInt64(message, field, index) : r->GetInt64(message, field));
    case FieldDescriptor::CPPTYPE_UINT32:
      return absl::StrCat(repeated ? r->GetRepeatedUInt32(message, field, index) : r->GetUInt32(message, field));
    case FieldDescriptor::CPPTYPE_UINT64:
      return absl::StrCat(repeated ? r->GetRepeatedUInt64(message, field, index) : r->GetUInt64(message, field));
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return Number(repeated ? r->GetRepeatedDouble(message, field, index) : r->GetDouble(message, field));
    case FieldDescriptor::CPPTYPE_FLOAT:
      return Number(repeated ? r->GetRepeatedFloat(message, field, index) : r->GetFloat(message, field));
    case FieldDescriptor::CPPTYPE_BOOL:
      return (repeated ? r->GetRepeatedBool(message, field, index) : r->GetBool(message, field)) ? "true" : "false";
    case FieldDescriptor::CPPTYPE_ENUM:
      return ShortEnumName(*(repeated ? r->GetRepeatedEnum(message, field, index) : r->GetEnum(message, field)));
    case FieldDescriptor::CPPTYPE_STRING:
      return Quoted(repeated ? r->GetRepeatedString(message, field, index) : r->GetString(message, field));
    case FieldDescriptor::CPPTYPE_MESSAGE:
      break;
  }
  return "";
}

void WriteFields(const Message& message, int indent, std::string* out);

// What stands after "key:" or "-".
void WriteMessage(const Message& message, int indent, std::string* out) {
  if (message.GetDescriptor() == google::protobuf::Duration::descriptor()) {
    const auto& duration = static_cast<const google::protobuf::Duration&>(message);
    absl::StrAppend(out, " ",
                    FormatDurationText(absl::Seconds(duration.seconds()) + absl::Nanoseconds(duration.nanos())), "\n");
    return;
  }
  if (message.GetDescriptor() == google::protobuf::Timestamp::descriptor()) {
    const auto& time = static_cast<const google::protobuf::Timestamp&>(message);
    absl::StrAppend(out, " \"", google::protobuf::util::TimeUtil::ToString(time), "\"\n");
    return;
  }
  std::string fields;
  WriteFields(message, indent, &fields);
  if (fields.empty()) {
    absl::StrAppend(out, " {}\n");
  } else {
    absl::StrAppend(out, "\n", fields);
  }
}

void WriteMap(const Message& message, const FieldDescriptor* field, int indent, std::string* out) {
  std::map<std::string, std::string> entries;
  const auto* reflection = message.GetReflection();
  for (int i = 0; i < reflection->FieldSize(message, field); ++i) {
    const Message& entry = reflection->GetRepeatedMessage(message, field, i);
    entries[Scalar(entry, field->message_type()->map_key(), -1)] =
        Scalar(entry, field->message_type()->map_value(), -1);
  }
  for (const auto& [key, value] : entries) {
    absl::StrAppend(out, std::string(indent, ' '), key, ": ", value, "\n");
  }
}

void WriteFields(const Message& message, int indent, std::string* out) {
  const auto* reflection = message.GetReflection();
  const auto* type = message.GetDescriptor();
  const std::string margin(indent, ' ');
  for (int i = 0; i < type->field_count(); ++i) {
    const FieldDescriptor* field = type->field(i);
    const bool is_message = field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE;
    if (!field->is_repeated()) {
      if (!reflection->HasField(message, field)) continue;
      absl::StrAppend(out, margin, field->name(), ":");
      if (is_message) {
        WriteMessage(reflection->GetMessage(message, field), indent + 2, out);
      } else {
        absl::StrAppend(out, " ", Scalar(message, field, -1), "\n");
      }
      continue;
    }
    const int size = reflection->FieldSize(message, field);
    if (size == 0) continue;
    absl::StrAppend(out, margin, field->name(), ":\n");
    if (field->is_map()) {
      WriteMap(message, field, indent + 2, out);
      continue;
    }
    for (int k = 0; k < size; ++k) {
      if (!is_message) {
        absl::StrAppend(out, margin, "  - ", Scalar(message, field, k), "\n");
        continue;
      }
      std::string item;
      WriteFields(reflection->GetRepeatedMessage(message, field, k), indent + 4, &item);
      absl::StrAppend(out, margin, "  -", item.empty() ? " {}\n" : item.substr(indent + 3));
    }
  }
}

}  // namespace

std::string ToYaml(const Message& message) {
  std::string out;
  WriteFields(message, 0, &out);
  return out.empty() ? "{}\n" : out;
}

}  // namespace trainyard::client
