// Flags without a value, as programs get them: `--metrics_listen=` turns the endpoint off and leaves the flag behind it
// alone.
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/testing/temp_dir.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/cluster.h"

namespace trainyard::testing_support {
namespace {

using ::testing::HasSubstr;
using ::testing::MatchesRegex;

class EmptyFlagsTest : public ::testing::Test {
 protected:
  // What the program wrote to its port file once it served.
  std::string PortsOf(const std::string& name) {
    std::string ports;
    EXPECT_TRUE(WaitUntil(
        [&] {
          ports = ReadFile(dir_.Join(name + ".ports")).value_or("");
          return !ports.empty();
        },
        absl::Seconds(30)))
        << ReadFile(dir_.Join(name + ".log")).value_or("");
    return ports;
  }
  // Every program gets an empty --metrics_listen, and then flags that an option without a value would swallow.
  std::unique_ptr<Process> Start(const std::string& name, std::vector<std::string> argv) {
    argv.insert(argv.end(), {"--metrics_listen=", absl::StrCat("--port_file=", dir_.Join(name + ".ports"))});
    return std::make_unique<Process>(ProcessOptions{.argv = argv, .output_path = dir_.Join(name + ".log")});
  }

  TempDir dir_;
};

TEST_F(EmptyFlagsTest, TurnEndpointsOffAndLeaveTheNextFlagAlone) {
  const auto coordinator =
      Start("coordinator", {ProgramPath("coordinator/trainyard-coordinator"), "--listen=127.0.0.1:0",
                            "--web_listen=", absl::StrCat("--data_dir=", dir_.Join("data"))});
  const std::string ports = PortsOf("coordinator");
  ASSERT_THAT(ports, MatchesRegex("grpc 127.0.0.1:[0-9]+\n"));
  const std::string address = ports.substr(5, ports.size() - 6);
  EXPECT_THAT(ReadFile(dir_.Join("coordinator.log")).value_or(""), HasSubstr("without metrics"));

  const auto worker =
      Start("worker", {ProgramPath("worker/daemon/trainyard-worker"), "--coordinator", address, "--gpus=none",
                       "--labels=", absl::StrCat("--state_dir=", dir_.Join("state")), "--cpu_slots=1",
                       absl::StrCat("--runner=", ProgramPath("worker/runner/trainyard-runner"))});
  EXPECT_EQ(PortsOf("worker"), absl::StrCat("pid ", worker->pid(), "\n"));

  const CommandResult listing = RunCommand(
      {ProgramPath("client/trainyard"), "list", "--filter=", absl::StrCat("--address=", address), "-o", "json"});
  EXPECT_EQ(listing.exit_code, 0) << listing.err;
  EXPECT_THAT(listing.out, HasSubstr("{"));
}

// A value that must not be empty is refused by name, not taken from elsewhere.
TEST_F(EmptyFlagsTest, AnEmptyNumberOrFolderIsRefused) {
  const CommandResult slots =
      RunCommand({ProgramPath("worker/daemon/trainyard-worker"), "--cpu_slots=", "--state_dir", "x"});
  EXPECT_NE(slots.exit_code, 0);
  EXPECT_THAT(slots.err + slots.out, HasSubstr("--cpu_slots"));
  const CommandResult lease =
      RunCommand({ProgramPath("coordinator/trainyard-coordinator"), "--lease_ttl=", "--data_dir", dir_.Join("other")});
  EXPECT_NE(lease.exit_code, 0);
  EXPECT_THAT(lease.err + lease.out, HasSubstr("--lease_ttl"));
}

}  // namespace
}  // namespace trainyard::testing_support
