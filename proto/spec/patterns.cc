#include "proto/spec/patterns.h"

#include "absl/strings/str_cat.h"

namespace trainyard::spec {

std::vector<std::string> ParsePatterns(const google::protobuf::RepeatedPtrField<std::string>& patterns,
                                       absl::string_view name, FieldErrors& errors) {
  constexpr int kMaxPatterns = 64;
  constexpr size_t kMaxPatternLength = 200;
  if (patterns.size() > kMaxPatterns) {
    errors.Add(name, absl::StrCat(patterns.size(), " patterns, at most ", kMaxPatterns, " allowed"));
  }
  for (int i = 0; i < patterns.size(); ++i) {
    if (patterns[i].empty() || patterns[i].size() > kMaxPatternLength) {
      errors.Add(absl::StrCat(name, "[", i, "]"),
                 absl::StrCat(patterns[i].size(), " characters not in [1, ", kMaxPatternLength, "]"));
    }
  }
  return {patterns.begin(), patterns.end()};
}

}  // namespace trainyard::spec
