// Certificates as `certs init` makes them, on real servers and channels.
#include "client/certificates.h"

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include "base/file.h"
#include "base/testing/status_matchers.h"
#include "base/testing/temp_dir.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/rpc/channel.h"
#include "proto/rpc/server.h"
#include "proto/v1/coordinator.grpc.pb.h"

namespace trainyard::client {
namespace {

using ::testing::HasSubstr;

class Jobs final : public v1::Jobs::Service {
  grpc::Status GetServerInfo(grpc::ServerContext*, const v1::GetServerInfoRequest*, v1::ServerInfo*) override {
    return grpc::Status::OK;
  }
};

class CertificatesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK_AND_ASSIGN(authority_, MakeAuthority("test CA", 10));
    ASSERT_OK_AND_ASSIGN(other_authority_, MakeAuthority("test CA", 10));
  }

  TlsFiles Write(const std::string& name, const CertificateAuthority& authority, const std::vector<std::string>& hosts,
                 int days = 5) {
    const absl::StatusOr<IssuedCertificate> issued =
        Issue(authority, {.common_name = name, .hosts = hosts, .days = days});
    EXPECT_OK(issued.status());
    const TlsFiles files = {dir_.Join(name + ".crt"), dir_.Join(name + ".key"), dir_.Join(name + ".ca")};
    EXPECT_OK(WriteFileAtomic(files.cert, issued->certificate));
    EXPECT_OK(WriteFileAtomic(files.key, issued->key));
    EXPECT_OK(WriteFileAtomic(files.ca, authority.certificate));
    return files;
  }

  static grpc::Status Call(const std::string& address, const Security& security) {
    const auto channel = MakeChannel(address, {.security = security, .retry = false});
    if (!channel.ok()) return grpc::Status(grpc::StatusCode::UNKNOWN, std::string(channel.status().message()));
    grpc::ClientContext context;
    SetDeadline(&context, absl::Seconds(5));
    v1::ServerInfo info;
    return v1::Jobs::NewStub(*channel)->GetServerInfo(&context, {}, &info);
  }

  absl::StatusOr<std::unique_ptr<RpcServer>> Serve(const TlsFiles& files) {
    return RpcServer::Start({.address = "127.0.0.1:0", .security = {.tls = files}}, {&jobs_});
  }

  TempDir dir_;
  Jobs jobs_;
  CertificateAuthority authority_, other_authority_;
};

TEST_F(CertificatesTest, OnlyHoldersOfTheCasCertificatesGetThrough) {
  const TlsFiles server_files = Write("server", authority_, {"localhost", "127.0.0.1"});
  ASSERT_OK_AND_ASSIGN(const auto server, Serve(server_files));
  const std::string port = server->address().substr(server->address().rfind(':'));
  const TlsFiles client = Write("client", authority_, {});
  EXPECT_TRUE(Call("127.0.0.1" + port, {.tls = client}).ok());
  EXPECT_TRUE(Call("localhost" + port, {.tls = client}).ok());

  EXPECT_FALSE(Call("127.0.0.1" + port, {}).ok()) << "plaintext";
  const TlsFiles stranger = Write("stranger", other_authority_, {});
  EXPECT_FALSE(Call("127.0.0.1" + port, {.tls = stranger}).ok()) << "neither believes the other";
  // Believes the server, but is of another CA of the same name.
  TlsFiles disguised = stranger;
  ASSERT_OK(WriteFileAtomic(disguised.ca, other_authority_.certificate + authority_.certificate));
  EXPECT_FALSE(Call("127.0.0.1" + port, {.tls = disguised}).ok()) << "a certificate of another CA";
}

TEST_F(CertificatesTest, AServerMustNameTheHostThatWasCalled) {
  const TlsFiles server_files = Write("server", authority_, {"elsewhere.example"});
  ASSERT_OK_AND_ASSIGN(const auto server, Serve(server_files));
  EXPECT_FALSE(Call(server->address(), {.tls = Write("client", authority_, {})}).ok());
}

TEST_F(CertificatesTest, BadFilesAreNamed) {
  const TlsFiles good = Write("good", authority_, {});
  EXPECT_OK(CheckTlsFiles(good));
  const auto problem = [](const TlsFiles& files) { return std::string(CheckTlsFiles(files).message()); };

  TlsFiles files = good;
  files.key.clear();
  EXPECT_THAT(problem(files), HasSubstr("--tls_key is missing"));
  files = good;
  files.cert = dir_.Join("nowhere");
  EXPECT_THAT(problem(files), HasSubstr("--tls_cert " + files.cert));
  files = good;
  files.ca = good.key;
  EXPECT_THAT(problem(files), HasSubstr("holds no PEM certificate"));
  files = good;
  files.key = Write("another", authority_, {}).key;
  EXPECT_THAT(problem(files), HasSubstr("is not the key of the certificate in " + good.cert));
  files = good;
  files.ca = Write("stranger", other_authority_, {}).ca;
  EXPECT_THAT(problem(files), HasSubstr("--tls_cert " + good.cert + ": is not accepted under " + files.ca));
  EXPECT_THAT(problem(Write("expired", authority_, {}, /*days=*/-1)), HasSubstr("expired"));
}

TEST_F(CertificatesTest, HostsAreNamesOrAddresses) {
  for (const char* bad : {"", "a b", "-x", "host,DNS:other", "*"}) {
    const auto issued = Issue(authority_, {.common_name = "x", .hosts = {bad}, .days = 1});
    EXPECT_EQ(issued.status().code(), absl::StatusCode::kInvalidArgument) << bad;
  }
  EXPECT_OK(
      Issue(authority_, {.common_name = "x", .hosts = {"*.trainyard.svc", "::1", "10.0.0.1"}, .days = 1}).status());
}

}  // namespace
}  // namespace trainyard::client
