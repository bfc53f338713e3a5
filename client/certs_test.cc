#include <sys/stat.h>

#include <sstream>

#include "base/file.h"
#include "base/testing/status_matchers.h"
#include "base/testing/temp_dir.h"
#include "client/cli.h"
#include "client/context.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/rpc/tls_files.h"

namespace trainyard::client {
namespace {

using ::testing::HasSubstr;

class CertsTest : public ::testing::Test {
 protected:
  int Run(const std::vector<std::string>& args) {
    out_.str("");
    err_.str("");
    Environment environment;
    environment.out = &out_;
    environment.err = &err_;
    environment.get_env = [](const char*) -> const char* { return nullptr; };
    return RunCli(args, environment);
  }

  TempDir dir_;
  std::ostringstream out_, err_;
};

TEST_F(CertsTest, InitMakesWhatEachPartNeeds) {
  const std::string made = dir_.Join("tls");
  ASSERT_EQ(Run({"certs", "init", "--dir", made, "--host", "train.example", "--host", "10.1.2.3"}), kExitOk)
      << err_.str();
  for (const char* part : {"coordinator", "worker", "client"}) {
    const std::string folder = JoinPath(made, part);
    EXPECT_OK(CheckTlsFiles({folder + "/tls.crt", folder + "/tls.key", folder + "/ca.crt"})) << part;
    struct stat key;
    ASSERT_EQ(stat((folder + "/tls.key").c_str(), &key), 0);
    EXPECT_EQ(key.st_mode & 0777, 0600u);
    EXPECT_THAT(out_.str(), HasSubstr("--tls_key=" + folder + "/tls.key"));
  }
  EXPECT_THAT(out_.str(), HasSubstr("openssl pkcs12 -export -name trainyard -inkey " + made + "/client/tls.key"));
  struct stat key;
  ASSERT_EQ(stat((made + "/ca.key").c_str(), &key), 0);
  EXPECT_EQ(key.st_mode & 0777, 0600u);
}

TEST_F(CertsTest, NothingIsReplaced) {
  const std::string made = dir_.Join("tls");
  ASSERT_EQ(Run({"certs", "init", "--dir", made}), kExitOk);
  ASSERT_OK_AND_ASSIGN(const std::string before, ReadFile(made + "/ca.key"));
  EXPECT_EQ(Run({"certs", "init", "--dir", made}), kExitFailedCall);
  EXPECT_THAT(err_.str(), HasSubstr("is there already"));
  ASSERT_OK_AND_ASSIGN(const std::string after, ReadFile(made + "/ca.key"));
  EXPECT_EQ(before, after);
}

TEST_F(CertsTest, BadInputIsNamedBeforeAnythingIsWritten) {
  const std::string made = dir_.Join("tls");
  EXPECT_EQ(Run({"certs", "init", "--dir", made, "--host", "two words"}), kExitUsage);
  EXPECT_THAT(err_.str(), HasSubstr("two words"));
  EXPECT_EQ(Run({"certs", "init", "--dir", made, "--days", "0"}), kExitUsage);
  EXPECT_EQ(Run({"certs", "init"}), kExitUsage);
  EXPECT_FALSE(FileExists(made + "/ca.crt"));
}

TEST_F(CertsTest, ACallWithBadFilesSaysWhichFlag) {
  EXPECT_EQ(Run({"list", "--tls_cert", dir_.Join("none")}), kExitUsage);
  EXPECT_THAT(err_.str(), HasSubstr("--tls_cert " + dir_.Join("none")));
}

}  // namespace
}  // namespace trainyard::client
