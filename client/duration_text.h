// Durations as people write them: "90s", "10m", "1h30m", "1.5h", "250ms", "7d", or a plain number of seconds.
#pragma once

#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace trainyard::client {

// Nullopt if the text is anything else, or more than 10,000 years. A leading '-' negates the whole.
std::optional<absl::Duration> ParseDurationText(absl::string_view text);

// The shortest exact form that ParseDurationText reads back: "1h30m", "0s", "1.5s".
std::string FormatDurationText(absl::Duration duration);

// For people, two units at most: "3d 4h", "2m 05s", "12s".
std::string RoughDuration(absl::Duration duration);

}  // namespace trainyard::client
