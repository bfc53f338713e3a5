// Where in the user's files each field of a spec was given, so that an error that is found later, here or in the
// coordinator, still names a line.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "proto/rpc/error_details.h"

namespace trainyard::client {

struct SourceLocation {
  std::string origin;  // "job.yaml" or "--set training.steps=0"
  int line = 0;        // 1-based; 0: the origin has no lines
  int column = 0;

  std::string ToString() const;  // "job.yaml:12:5"
};

class SourceMap {
 public:
  // The whole spec: what is missing is reported here.
  void SetRoot(SourceLocation location) { Set("", std::move(location)); }
  // A later call for one path wins.
  void Set(const std::string& path, SourceLocation location) { locations_[path] = std::move(location); }

  // The place of the field, or of the nearest field around it that was given.
  SourceLocation Find(std::string path) const;

 private:
  std::map<std::string, SourceLocation> locations_;
};

struct SpecProblem {
  SourceLocation location;
  std::string path;
  std::string text;
};

// InvalidArgument, one "job.yaml:12:5: path: text" a line in the order of the file; OK if there are none.
absl::Status ProblemsToStatus(std::vector<SpecProblem> problems);

// The same for violations that proto/spec or the coordinator found; `status` unchanged if it has none.
absl::Status LocateViolations(const absl::Status& status, const SourceMap& map);
// For violations of several jobs, whose paths begin with "jobs[2].".
absl::Status LocateViolations(const absl::Status& status, const std::vector<const SourceMap*>& maps);

}  // namespace trainyard::client
