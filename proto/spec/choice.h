// From an enum of the wire to one of ours.
#pragma once

#include <initializer_list>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/spec/field_errors.h"

namespace trainyard::spec {

// The first choice is the default, which UNSPECIFIED (0) means. A value that is none of them, which only a newer client
// can send, is a problem of the field.
template <typename Wire, typename Option>
Option Choose(FieldErrors& errors, absl::string_view name, Wire value,
              std::initializer_list<std::pair<Wire, Option>> choices) {
  for (const auto& [wire, option] : choices) {
    if (wire == value) return option;
  }
  if (static_cast<int>(value) != 0) {
    errors.Add(name, absl::StrCat(static_cast<int>(value), " is not a known choice"));
  }
  return choices.begin()->second;
}

}  // namespace trainyard::spec
