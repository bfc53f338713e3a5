#include <algorithm>
#include <ostream>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/commands.h"
#include "client/plot.h"

namespace trainyard::client {
namespace {

void PrintPlots(const std::vector<std::string>& names, const v1::MetricsResponse& metrics, const std::string& job,
                Context& context) {
  for (const std::string& name : names) {
    std::vector<PlotPoint> points;
    for (const auto& point : metrics.points()) {
      const auto value = point.values().find(name);
      if (value != point.values().end()) points.push_back({static_cast<double>(point.step()), value->second});
    }
    std::string title = absl::StrCat(name, " of ", job);
    if (!points.empty()) absl::StrAppendFormat(&title, ": %.4g -> %.4g", points.front().y, points.back().y);
    context.out() << Plot(std::move(points),
                          {.title = title, .width = std::min(context.env.columns, 100), .height = 16});
  }
}

}  // namespace

int RunMetrics(const MetricsOptions& options, Context& context) {
  v1::MetricsRequest request;
  request.set_namespace_(context.settings.name_space);
  request.set_job(options.job);
  std::vector<std::string> names = options.names;
  if (names.empty() && options.plot) names = {"loss"};
  request.mutable_names()->Assign(names.begin(), names.end());
  request.set_after_step(options.after_step);
  request.set_max_points(options.max_points);
  const auto metrics = context.jobs->Metrics(request);
  if (!metrics.ok()) return Fail(context, metrics.status());
  if (options.plot) {
    PrintPlots(names, *metrics, options.job, context);
    return kExitOk;
  }
  if (context.settings.output == OutputFormat::kJsonl) {
    for (const auto& point : metrics->points()) PrintAsData(context, point);
    return kExitOk;
  }
  if (PrintAsData(context, *metrics)) return kExitOk;
  if (names.empty()) {
    std::set<std::string> seen;
    for (const auto& point : metrics->points()) {
      for (const auto& [name, value] : point.values()) seen.insert(name);
    }
    for (const std::string& name : seen) names.push_back(name);
  }
  std::vector<std::vector<std::string>> rows = {{"STEP", "ATTEMPT"}};
  rows[0].insert(rows[0].end(), names.begin(), names.end());
  for (const auto& point : metrics->points()) {
    std::vector<std::string> row = {absl::StrCat(point.step()), absl::StrCat(point.attempt())};
    for (const std::string& name : names) {
      const auto value = point.values().find(name);
      row.push_back(value == point.values().end() ? "-" : absl::StrFormat("%.6g", value->second));
    }
    rows.push_back(std::move(row));
  }
  if (rows.size() == 1) {
    context.err() << "No points yet.\n";
  } else {
    context.out() << Table(rows);
  }
  return kExitOk;
}

}  // namespace trainyard::client
