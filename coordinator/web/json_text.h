// Texts inside JSON that is not a protocol buffer's.
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace trainyard::coordinator {

// With its quotes. Control characters, quotes, backslashes and <, >, & are escaped; bytes that are no UTF-8 become
// U+FFFD.
std::string JsonString(absl::string_view text);

// Nine digits, which is more than a plot shows; null for NaN and infinities, which JSON has no words for.
std::string JsonNumber(double value);

}  // namespace trainyard::coordinator
