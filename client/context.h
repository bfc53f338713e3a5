// What every command has at hand.
#pragma once

#include <functional>
#include <iosfwd>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "client/interrupt.h"
#include "client/jobs_client.h"
#include "client/settings.h"

namespace google::protobuf {
class Message;
class Timestamp;
}  // namespace google::protobuf

namespace trainyard::client {

// Documented in docs/operations.md; scripts depend on them.
inline constexpr int kExitOk = 0;
inline constexpr int kExitFailedCall = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitNotFound = 3;
inline constexpr int kExitDenied = 4;
inline constexpr int kExitTimeout = 5;
inline constexpr int kExitJobUnsuccessful = 6;
inline constexpr int kExitInterrupted = 130;

// The world around a run of the program; a test makes its own.
struct Environment {
  std::ostream* out = nullptr;  // results
  std::ostream* err = nullptr;  // messages
  GetEnv get_env;
  bool is_terminal = false;  // out is one
  int columns = 80;
  const Interrupt* interrupt = nullptr;
  Clock* clock = nullptr;
  std::string program_path;  // of this executable
  // Replaces the process; returns an errno if that fails.
  std::function<int(const std::string& path, const std::vector<std::string>& args)> execute;
};

struct Context {
  Environment env;
  Settings settings;
  bool quiet = false;
  std::unique_ptr<JobsClient> jobs;  // null for commands that call nobody

  std::ostream& out() const { return *env.out; }
  std::ostream& err() const { return *env.err; }
};

// "trainyard: ..." on stderr with what to try next; returns the exit code of the status.
int Fail(const Context& context, const absl::Status& status);
int ExitCodeOf(const absl::Status& status);

bool IsTerminal(v1::JobState state);
// "running" for JOB_STATE_RUNNING.
std::string StateName(v1::JobState state);
// kExitOk for SUCCEEDED, else kExitJobUnsuccessful.
int ExitCodeOfEnd(v1::JobState state);

// RFC 3339, UTC, whole seconds; "-" for 0.
std::string TimeText(const google::protobuf::Timestamp& time);
absl::Time ToTime(const google::protobuf::Timestamp& time);

// In the formats json, jsonl and yaml: prints the message and returns true.
bool PrintAsData(const Context& context, const google::protobuf::Message& message);

// Columns aligned by spaces; the first row is the header. Nothing for no rows.
std::string Table(const std::vector<std::vector<std::string>>& rows);

}  // namespace trainyard::client
