#include "client/context.h"

#include <google/protobuf/timestamp.pb.h>
#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <ostream>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "client/yaml_text.h"

namespace trainyard::client {

int ExitCodeOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return kExitOk;
    case absl::StatusCode::kNotFound:
      return kExitNotFound;
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kUnauthenticated:
      return kExitDenied;
    default:
      return kExitFailedCall;
  }
}

int Fail(const Context& context, const absl::Status& status) {
  if (context.env.interrupt != nullptr && absl::IsCancelled(status) && context.env.interrupt->triggered()) {
    context.err() << "trainyard: interrupted\n";
    return kExitInterrupted;
  }
  context.err() << "trainyard: " << status.message() << "\n";
  const std::string& address = context.settings.address;
  switch (status.code()) {
    case absl::StatusCode::kUnavailable:
      context.err() << "The coordinator at " << address << " does not answer. Is the address right (--address, "
                    << "TRAINYARD_ADDRESS)? To start one: trainyard-coordinator --listen " << address
                    << " --data_dir DIR, or deploy/local/cluster.sh start\n";
      break;
    case absl::StatusCode::kDeadlineExceeded:
      context.err() << "The coordinator at " << address << " was too slow. Try again, or give --call-timeout 60s\n";
      break;
    case absl::StatusCode::kNotFound:
      context.err() << "See what there is: trainyard list --all-namespaces\n";
      break;
    default:
      break;
  }
  return ExitCodeOf(status);
}

bool IsTerminal(v1::JobState state) {
  return state == v1::JOB_STATE_SUCCEEDED || state == v1::JOB_STATE_FAILED || state == v1::JOB_STATE_CANCELLED;
}

std::string StateName(v1::JobState state) {
  std::string name = v1::JobState_Name(state);
  if (name.empty()) return absl::StrCat("state ", static_cast<int>(state));
  return absl::AsciiStrToLower(absl::StripPrefix(name, "JOB_STATE_"));
}

int ExitCodeOfEnd(v1::JobState state) {
  return state == v1::JOB_STATE_SUCCEEDED ? kExitOk : kExitJobUnsuccessful;
}

absl::Time ToTime(const google::protobuf::Timestamp& time) {
  return absl::FromUnixSeconds(time.seconds()) + absl::Nanoseconds(time.nanos());
}

std::string TimeText(const google::protobuf::Timestamp& time) {
  if (time.seconds() == 0) return "-";
  return absl::FormatTime("%Y-%m-%dT%H:%M:%SZ", ToTime(time), absl::UTCTimeZone());
}

bool PrintAsData(const Context& context, const google::protobuf::Message& message) {
  const OutputFormat format = context.settings.output;
  if (format == OutputFormat::kYaml) {
    context.out() << ToYaml(message);
    return true;
  }
  if (format != OutputFormat::kJson && format != OutputFormat::kJsonl) return false;
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = format == OutputFormat::kJson;
  std::string json;
  const auto status = google::protobuf::util::MessageToJsonString(message, &json, options);
  if (!status.ok()) {
    // Only text that is not UTF-8 can do this.
    context.err() << "trainyard: cannot print as JSON: " << std::string(status.message()) << "\n";
    return true;
  }
  context.out() << json;
  if (json.empty() || json.back() != '\n') context.out() << "\n";
  return true;
}

std::string Table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string out;
  for (const auto& row : rows) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      absl::StrAppend(&line, row[i], std::string(widths[i] - row[i].size() + 2, ' '));
    }
    absl::StrAppend(&out, absl::StripTrailingAsciiWhitespace(line), "\n");
  }
  return out;
}

}  // namespace trainyard::client
