#include "coordinator/store/metric_points.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace trainyard::coordinator {
namespace {

absl::StatusOr<v1::MetricPoint> Parse(const std::string& bytes) {
  v1::MetricPoint point;
  if (!point.ParseFromString(bytes)) return absl::DataLossError("the database has a metric point that cannot be read");
  return point;
}

// Places of `limit` of `count` things, the last among them; all of them for 0.
std::vector<size_t> Spread(size_t count, size_t limit) {
  const size_t chosen = limit == 0 ? count : std::min(count, limit);
  std::vector<size_t> places;
  for (size_t i = 1; i <= chosen; ++i) places.push_back(i * count / chosen - 1);
  return places;
}

}  // namespace

absl::StatusOr<std::vector<v1::MetricPoint>> ChoosePoints(const StoredPoints& stored, const PointChoice& choice) {
  const size_t limit = static_cast<size_t>(std::max(choice.max_points, 0));
  std::vector<v1::MetricPoint> points;
  if (choice.names.empty()) {
    for (const size_t place : Spread(stored.size(), limit)) {
      TY_ASSIGN_OR_RETURN(points.emplace_back(), Parse(stored[place]));
    }
    return points;
  }
  std::vector<v1::MetricPoint> having;
  for (const std::string& bytes : stored) {
    TY_ASSIGN_OR_RETURN(v1::MetricPoint point, Parse(bytes));
    google::protobuf::Map<std::string, double> chosen;
    for (const std::string& name : choice.names) {
      const auto value = point.values().find(name);
      if (value != point.values().end()) chosen[name] = value->second;
    }
    if (chosen.empty()) continue;
    point.mutable_values()->swap(chosen);
    having.push_back(std::move(point));
  }
  for (const size_t place : Spread(having.size(), limit)) points.push_back(std::move(having[place]));
  return points;
}

}  // namespace trainyard::coordinator
