// How names of proto fields and enum values look in YAML: fields as they are, enum values short and in lower case
// ("cosine" for SHAPE_COSINE).
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace google::protobuf {
class Descriptor;
class EnumDescriptor;
class EnumValueDescriptor;
}  // namespace google::protobuf

namespace trainyard::client {

std::string ShortEnumName(const google::protobuf::EnumValueDescriptor& value);

// By short or full name, in any case; null if unknown or the UNSPECIFIED value.
const google::protobuf::EnumValueDescriptor* FindEnumValue(const google::protobuf::EnumDescriptor& type,
                                                           absl::string_view name);

// Without UNSPECIFIED, in order of declaration.
std::vector<std::string> ShortEnumNames(const google::protobuf::EnumDescriptor& type);

std::vector<std::string> FieldNames(const google::protobuf::Descriptor& type);

// The candidate with the smallest edit distance if that is small enough for a typing error; else empty.
std::string ClosestName(absl::string_view name, const std::vector<std::string>& candidates);

}  // namespace trainyard::client
