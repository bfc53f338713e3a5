// Patterns of names: * stands for any characters, also none, ? for one.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace trainyard {

// Whether `pattern` matches all of `name`.
bool MatchesPattern(absl::string_view pattern, absl::string_view name);
bool MatchesAny(const std::vector<std::string>& patterns, absl::string_view name);

}  // namespace trainyard
