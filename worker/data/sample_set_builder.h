// JSON lines to a sample set.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/data/sample_set.h"

namespace trainyard::data {

struct SampleSetOptions {
  // Files of one JSON object a line:
  //   {"id"?, "source"?, "text"}               every token but the first is a label
  //   {"id"?, "source"?, "prompt", "response"} the response's tokens are
  // The end-of-text token, if there is one, follows the text or a response that is not empty, as a label.
  std::vector<std::string> inputs;
  std::string output;               // folder; made if needed
  std::string tokenizer = "bytes";  // "bytes", a tokenizer.json, or a folder that has one
  double validation_fraction = 0;   // [0, 0.5] of the samples, by a digest of the id, for evaluation only
  bool overwrite = false;
};

struct SampleSetReport {
  SampleSetInfo info;
  int64_t validation_count = 0;
  // Lines that are no sample (no JSON, wrong fields, an id that was there before): how many, and the first as
  // "file:line: what".
  int64_t damaged_count = 0;
  std::vector<std::string> damaged;
  int64_t empty_line_count = 0;
};

// An id that is not given is the digest of the line's text, with "-2", "-3" ... where a text comes again; so the ids do
// not depend on the order of different lines. InvalidArgument for options out of range and for input without a single
// sample, FailedPrecondition for an output that holds a set, NotFound for files that are not there.
absl::StatusOr<SampleSetReport> BuildSampleSet(const SampleSetOptions& options);

inline constexpr size_t kMostDamagedLines = 20;

}  // namespace trainyard::data
