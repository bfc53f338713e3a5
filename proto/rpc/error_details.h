// What a status carries for programs besides its code and sentence: google.rpc details, kept as payloads of the
// absl::Status. proto/rpc/status.h carries them over gRPC unchanged, so code that decides never sees a gRPC type.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace trainyard {

inline constexpr char kErrorDomain[] = "trainyard";

// One bad field of a request. `text` says what is wrong with the value and what is allowed: "-1 not in (0, 10]".
struct FieldViolation {
  std::string path;  // "training.optimizer.adamw.learning_rate"
  std::string text;

  bool operator==(const FieldViolation& other) const { return path == other.path && text == other.text; }
};

// All are no-ops on an OK status. A second call of one kind replaces the first.
void SetFieldViolations(absl::Status* status, const std::vector<FieldViolation>& violations);
void SetErrorInfo(absl::Status* status, absl::string_view reason, const std::map<std::string, std::string>& metadata);

// A status with an ErrorInfo: ErrorWithReason(code, "REQUEST_ID_REUSED", "...", {{"job", uid}}).
absl::Status ErrorWithReason(absl::StatusCode code, absl::string_view reason, absl::string_view message,
                             const std::map<std::string, std::string>& metadata = {});

// Empty if the status has none.
std::vector<FieldViolation> GetFieldViolations(const absl::Status& status);
std::string GetErrorReason(const absl::Status& status);
std::map<std::string, std::string> GetErrorMetadata(const absl::Status& status);

}  // namespace trainyard
