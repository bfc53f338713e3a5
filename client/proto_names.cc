#include "client/proto_names.h"

#include <google/protobuf/descriptor.h>

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/strip.h"

namespace trainyard::client {
namespace {

constexpr char kUnspecified[] = "UNSPECIFIED";

// "SLOT_TYPE_" from "SLOT_TYPE_UNSPECIFIED", which by our naming rule is value 0.
absl::string_view Prefix(const google::protobuf::EnumDescriptor& type) {
  absl::string_view prefix = type.value(0)->name();
  absl::ConsumeSuffix(&prefix, kUnspecified);
  return prefix;
}

// Insertions, deletions, replacements and swaps of neighbours (optimal string alignment).
size_t EditDistance(absl::string_view a, absl::string_view b) {
  std::vector<std::vector<size_t>> cost(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) {
    for (size_t j = 0; j <= b.size(); ++j) {
      if (i == 0 || j == 0) {
        cost[i][j] = i + j;
        continue;
      }
      cost[i][j] = std::min({cost[i - 1][j] + 1, cost[i][j - 1] + 1, cost[i - 1][j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        cost[i][j] = std::min(cost[i][j], cost[i - 2][j - 2] + 1);
      }
    }
  }
  return cost[a.size()][b.size()];
}

}  // namespace

std::string ShortEnumName(const google::protobuf::EnumValueDescriptor& value) {
  absl::string_view name = value.name();
  absl::ConsumePrefix(&name, Prefix(*value.type()));
  return absl::AsciiStrToLower(name);
}

const google::protobuf::EnumValueDescriptor* FindEnumValue(const google::protobuf::EnumDescriptor& type,
                                                           absl::string_view name) {
  for (int i = 1; i < type.value_count(); ++i) {
    if (absl::EqualsIgnoreCase(name, ShortEnumName(*type.value(i))) ||
        absl::EqualsIgnoreCase(name, type.value(i)->name())) {
      return type.value(i);
    }
  }
  return nullptr;
}

std::vector<std::string> ShortEnumNames(const google::protobuf::EnumDescriptor& type) {
  std::vector<std::string> names;
  for (int i = 1; i < type.value_count(); ++i) names.push_back(ShortEnumName(*type.value(i)));
  return names;
}

std::vector<std::string> FieldNames(const google::protobuf::Descriptor& type) {
  std::vector<std::string> names;
  for (int i = 0; i < type.field_count(); ++i) names.push_back(type.field(i)->name());
  return names;
}

std::string ClosestName(absl::string_view name, const std::vector<std::string>& candidates) {
  if (name.size() > 100) return "";
  std::string best;
  size_t best_distance = std::max<size_t>(1, name.size() / 3) + 1;
  for (const std::string& candidate : candidates) {
    const size_t distance = EditDistance(name, candidate);
    if (distance < best_distance) {
      best_distance = distance;
      best = candidate;
    }
  }
  return best;
}

}  // namespace trainyard::client
