#include "client/duration_text.h"

#include <cmath>
#include <cstdlib>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"

namespace trainyard::client {
namespace {

constexpr double kMaxSeconds = 3.15e11;  // protobuf's limit, 10,000 years

std::optional<absl::Duration> ConsumeUnit(absl::string_view* text) {
  if (absl::ConsumePrefix(text, "ms")) return absl::Milliseconds(1);
  if (absl::ConsumePrefix(text, "us")) return absl::Microseconds(1);
  if (absl::ConsumePrefix(text, "ns")) return absl::Nanoseconds(1);
  if (absl::ConsumePrefix(text, "s")) return absl::Seconds(1);
  if (absl::ConsumePrefix(text, "m")) return absl::Minutes(1);
  if (absl::ConsumePrefix(text, "h")) return absl::Hours(1);
  if (absl::ConsumePrefix(text, "d")) return absl::Hours(24);
  return std::nullopt;
}

// Digits with at most one point in them.
std::optional<double> ConsumeNumber(absl::string_view* text) {
  size_t end = 0;
  while (end < text->size() && (absl::ascii_isdigit((*text)[end]) || (*text)[end] == '.')) ++end;
  double value = 0;
  if (end == 0 || !absl::SimpleAtod(text->substr(0, end), &value)) return std::nullopt;
  text->remove_prefix(end);
  return value;
}

}  // namespace

std::optional<absl::Duration> ParseDurationText(absl::string_view text) {
  text = absl::StripAsciiWhitespace(text);
  const bool negative = absl::ConsumePrefix(&text, "-");
  absl::Duration total;
  bool first = true;
  do {
    const auto number = ConsumeNumber(&text);
    if (!number.has_value()) return std::nullopt;
    auto unit = ConsumeUnit(&text);
    if (!unit.has_value()) {
      if (!first || !text.empty()) return std::nullopt;
      unit = absl::Seconds(1);
    }
    if (*number * absl::ToDoubleSeconds(*unit) > kMaxSeconds) return std::nullopt;
    // Whole numbers exactly; a double would lose the last bits of a long time in nanoseconds.
    const auto whole = static_cast<int64_t>(*number);
    total += whole * *unit + (*number - static_cast<double>(whole)) * *unit;
    first = false;
  } while (!text.empty());
  if (absl::ToDoubleSeconds(total) > kMaxSeconds) return std::nullopt;
  return negative ? -total : total;
}

std::string FormatDurationText(absl::Duration duration) {
  if (duration < absl::ZeroDuration()) return absl::StrCat("-", FormatDurationText(-duration));
  const int64_t seconds = absl::ToInt64Seconds(duration);
  const int64_t nanos = absl::ToInt64Nanoseconds(duration - absl::Seconds(seconds));
  std::string text;
  if (seconds / 3600 > 0) absl::StrAppend(&text, seconds / 3600, "h");
  if (seconds / 60 % 60 > 0) absl::StrAppend(&text, seconds / 60 % 60, "m");
  if (nanos > 0) {
    std::string fraction = absl::StrFormat("%09d", nanos);
    while (fraction.back() == '0') fraction.pop_back();
    absl::StrAppend(&text, seconds % 60, ".", fraction, "s");
  } else if (seconds % 60 > 0 || text.empty()) {
    absl::StrAppend(&text, seconds % 60, "s");
  }
  return text;
}

std::string RoughDuration(absl::Duration duration) {
  if (duration == absl::InfiniteDuration()) return "unknown";
  const int64_t seconds = std::max<int64_t>(0, absl::ToInt64Seconds(duration + absl::Milliseconds(500)));
  if (seconds < 60) return absl::StrCat(seconds, "s");
  if (seconds < 3600) return absl::StrFormat("%dm %02ds", seconds / 60, seconds % 60);
  if (seconds < 86400) return absl::StrFormat("%dh %02dm", seconds / 3600, seconds / 60 % 60);
  return absl::StrFormat("%dd %dh", seconds / 86400, seconds / 3600 % 24);
}

}  // namespace trainyard::client
