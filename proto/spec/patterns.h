// Lists of name patterns in a spec (base/pattern.h).
#pragma once

#include <google/protobuf/repeated_field.h>

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "proto/spec/field_errors.h"

namespace trainyard::spec {

// At most 64 patterns of 1..200 characters.
std::vector<std::string> ParsePatterns(const google::protobuf::RepeatedPtrField<std::string>& patterns,
                                       absl::string_view name, FieldErrors& errors);

}  // namespace trainyard::spec
