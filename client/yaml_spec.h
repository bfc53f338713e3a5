// Job files to JobSpec: YAML (the canonical form), JSON and textproto, by the file's extension.
//
// Every problem of a file is reported at once, each with its line: unknown fields with a suggestion, duplicates, wrong
// types, two alternatives of a oneof, and then what proto/spec says about values and ranges.
//   job.yaml:12:5: training.optimizer.adamw.learnig_rate: unknown field, did you mean learning_rate?
//
// In YAML: durations are "90s", "1h30m" or seconds; enum values are short and lower case ("shape: cosine"); sizes in
// *_bytes may end in KiB, MiB or GiB; a message without fields is `identity: {}`, and where a message is only a choice
// of such alternatives its name alone will do ("codec: identity"), as does a job's where a job is meant ("depends_on:
// [train]", "artifact: train"). "---" separates several jobs, a pipeline if they wait for each other (pipeline.h).
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/source_map.h"
#include "proto/v1/job.pb.h"

namespace trainyard::client {

inline constexpr size_t kMaxSpecBytes = 1 << 20;

struct LoadedJob {
  v1::JobSpec spec;
  SourceMap sources;
};

// `content` of a file named `name`; `overrides` are "path=value" with a YAML value and apply to every job in it.
// InvalidArgument lists all problems, one a line.
absl::StatusOr<std::vector<LoadedJob>> ParseJobFile(const std::string& name, const std::string& content,
                                                    const std::vector<std::string>& overrides = {});

// Reads the file; "-" is standard input, as YAML.
absl::StatusOr<std::vector<LoadedJob>> LoadJobFile(const std::string& path,
                                                   const std::vector<std::string>& overrides = {});

}  // namespace trainyard::client
