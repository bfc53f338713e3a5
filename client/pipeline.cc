#include "client/pipeline.h"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "proto/spec/references.h"

namespace trainyard::client {
namespace {

// Where job `i` says that it waits for the job named `name`.
SpecProblem PlaceOfDependency(const LoadedJob& job, const spec::JobOptions& options, const std::string& name) {
  for (int i = 0; i < job.spec.depends_on_size(); ++i) {
    if (job.spec.depends_on(i).job() != name) continue;
    const std::string path = absl::StrCat("depends_on[", i, "].job");
    return {job.sources.Find(path), path, ""};
  }
  for (const spec::ArtifactReference& reference : spec::ReferencesOf(options)) {
    if (reference.job == name) return {job.sources.Find(reference.field), reference.field, ""};
  }
  return {job.sources.Find("depends_on"), "depends_on", ""};
}

// Depth-first search over jobs by their place in the file; an edge goes to what is waited for.
class CycleFinder {
 public:
  explicit CycleFinder(const std::vector<std::vector<size_t>>& edges) : edges_(edges), marks_(edges.size()) {}

  // The jobs of one cycle in order, beginning with its first job in the file; nothing if there is none.
  std::optional<std::vector<size_t>> Find() {
    for (size_t start = 0; start < edges_.size(); ++start) {
      if (marks_[start] == Mark::kNew && Visit(start)) {
        std::rotate(cycle_.begin(), std::min_element(cycle_.begin(), cycle_.end()), cycle_.end());
        return cycle_;
      }
    }
    return std::nullopt;
  }

 private:
  enum class Mark { kNew, kOnPath, kDone };

  bool Visit(size_t job) {
    marks_[job] = Mark::kOnPath;
    path_.push_back(job);
    for (const size_t next : edges_[job]) {
      if (marks_[next] == Mark::kOnPath) {
        cycle_.assign(std::find(path_.begin(), path_.end(), next), path_.end());
        return true;
      }
      if (marks_[next] == Mark::kNew && Visit(next)) return true;
    }
    path_.pop_back();
    marks_[job] = Mark::kDone;
    return false;
  }

  const std::vector<std::vector<size_t>>& edges_;
  std::vector<Mark> marks_;
  std::vector<size_t> path_, cycle_;
};

}  // namespace

std::vector<SpecProblem> FindPipelineProblems(const std::vector<LoadedJob>& jobs,
                                              const std::vector<spec::JobOptions>& options) {
  std::vector<SpecProblem> problems;
  std::map<std::string, size_t> by_name;
  for (size_t i = 0; i < jobs.size(); ++i) {
    if (options[i].name.empty()) continue;
    const auto [first, is_new] = by_name.emplace(options[i].name, i);
    if (is_new) continue;
    problems.push_back({jobs[i].sources.Find("name"), "name",
                        absl::StrCat("'", options[i].name, "' is also the name of the job at ",
                                     jobs[first->second].sources.Find("name").ToString())});
  }
  if (!problems.empty()) return problems;  // who waits for whom is not clear

  std::vector<std::vector<size_t>> edges(jobs.size());
  for (size_t i = 0; i < jobs.size(); ++i) {
    for (const spec::DependencyOptions& dependency : options[i].depends_on) {
      // Others are in the service already, or the coordinator says that they are not.
      const auto found = by_name.find(dependency.job);
      if (found != by_name.end()) edges[i].push_back(found->second);
    }
  }
  const std::optional<std::vector<size_t>> cycle = CycleFinder(edges).Find();
  if (!cycle) return problems;
  const auto name = [&](size_t place) { return options[(*cycle)[place % cycle->size()]].name; };
  std::vector<std::string> names;
  for (size_t i = 0; i <= cycle->size(); ++i) names.push_back(name(i));
  const size_t first = cycle->front();
  SpecProblem problem = PlaceOfDependency(jobs[first], options[first], name(1));
  problem.text = absl::StrCat("waits for itself: ", absl::StrJoin(names, " -> "));
  problems.push_back(std::move(problem));
  return problems;
}

std::string DependenciesText(const v1::JobSpec& spec) {
  const absl::StatusOr<spec::JobOptions> options = spec::ParseJob(spec);
  if (!options.ok()) return "";
  std::string text;
  const size_t count = options->depends_on.size();
  for (size_t i = 0; i < count; ++i) {
    absl::StrAppend(&text, i == 0 ? "" : i + 1 == count ? " and " : ", ", options->depends_on[i].job);
  }
  return text;
}

}  // namespace trainyard::client
