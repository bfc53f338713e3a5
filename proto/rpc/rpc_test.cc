// Over a real server and channel on loopback: what a status carries, limits, health, security.
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>

#include "base/check.h"
#include "base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "proto/rpc/channel.h"
#include "proto/rpc/error_details.h"
#include "proto/rpc/server.h"
#include "proto/rpc/status.h"
#include "proto/v1/coordinator.grpc.pb.h"

namespace trainyard {
namespace {

using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::Pair;

class Echo final : public v1::Jobs::CallbackService {
 public:
  grpc::ServerUnaryReactor* Get(grpc::CallbackServerContext* context, const v1::GetRequest*, v1::Job* job) override {
    auto* reactor = context->DefaultReactor();
    ++calls;
    if (calls <= unavailable_calls) {
      reactor->Finish(grpc::Status(grpc::StatusCode::UNAVAILABLE, "starting"));
      return reactor;
    }
    job->set_name(std::string(reply_bytes, 'x'));
    reactor->Finish(ToGrpcStatus(status));
    return reactor;
  }

  absl::Status status;
  size_t reply_bytes = 1;
  int unavailable_calls = 0;
  int calls = 0;
};

class RpcTest : public ::testing::Test {
 protected:
  RpcTest() {
    auto server = RpcServer::Start({}, {&echo_});
    TY_CHECK_OK(server);
    server_ = *std::move(server);
  }

  absl::Status Call(bool retry = true) {
    auto channel = MakeChannel(server_->address(), {.security = {}, .retry = retry});
    TY_CHECK_OK(channel);
    auto stub = v1::Jobs::NewStub(*channel);
    grpc::ClientContext context;
    SetDeadline(&context);
    v1::Job job;
    return FromGrpcStatus(stub->Get(&context, {}, &job));
  }

  Echo echo_;
  std::unique_ptr<RpcServer> server_;
};

TEST_F(RpcTest, CodeSentenceAndDetailsArriveAsTheyLeft) {
  echo_.status =
      ErrorWithReason(absl::StatusCode::kInvalidArgument, "REQUEST_ID_REUSED", "other payload", {{"id", "7"}});
  SetFieldViolations(&echo_.status, {{"world.min", "0 not in [1, 3]"}, {"name", "bad"}});
  const absl::Status got = Call();
  EXPECT_THAT(got, StatusIs(absl::StatusCode::kInvalidArgument, "other payload"));
  EXPECT_EQ(GetErrorReason(got), "REQUEST_ID_REUSED");
  EXPECT_THAT(GetErrorMetadata(got), ElementsAre(Pair("id", "7")));
  EXPECT_THAT(GetFieldViolations(got),
              ElementsAre(FieldViolation{"world.min", "0 not in [1, 3]"}, FieldViolation{"name", "bad"}));
}

// HTTP/2 trailers beyond 8 KiB would turn the error into INTERNAL.
TEST_F(RpcTest, AnErrorTooLargeForTrailersKeepsCodeAndSentence) {
  echo_.status = absl::InvalidArgumentError(std::string(100'000, 'm'));
  SetFieldViolations(&echo_.status, {{"f", std::string(100'000, 'v')}});
  EXPECT_THAT(Call(), StatusIs(absl::StatusCode::kInvalidArgument, EndsWith("mmm...")));
}

TEST_F(RpcTest, EveryCodeSurvives) {
  for (int code = 1; code <= 16; ++code) {
    if (code == static_cast<int>(absl::StatusCode::kUnavailable)) continue;  // retried, see below
    echo_.status = absl::Status(static_cast<absl::StatusCode>(code), "x");
    EXPECT_THAT(Call(), StatusIs(static_cast<absl::StatusCode>(code), "x"));
  }
}

TEST_F(RpcTest, RetriesUnavailableThreeTimes) {
  echo_.unavailable_calls = 3;
  EXPECT_OK(Call());
  EXPECT_EQ(echo_.calls, 4);
}

TEST_F(RpcTest, GivesUpAfterFourAttempts) {
  echo_.unavailable_calls = 100;
  EXPECT_THAT(Call(), StatusIs(absl::StatusCode::kUnavailable, "starting"));
  EXPECT_EQ(echo_.calls, 4);
}

TEST_F(RpcTest, WithoutRetryOneAttempt) {
  echo_.unavailable_calls = 100;
  EXPECT_THAT(Call(/*retry=*/false), StatusIs(absl::StatusCode::kUnavailable, "starting"));
  EXPECT_EQ(echo_.calls, 1);
}

TEST_F(RpcTest, MessagesEndAtFourMebibytes) {
  echo_.reply_bytes = kMaxMessageBytes - 100;
  EXPECT_OK(Call());
  echo_.reply_bytes = kMaxMessageBytes + 1;
  EXPECT_THAT(Call(), StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("larger than max")));
}

TEST_F(RpcTest, ASecondServerOnThePortIsRefused) {
  EXPECT_THAT(RpcServer::Start({.address = server_->address(), .security = {}}, {}),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr(server_->address())));
}

TEST_F(RpcTest, ShutdownEndsCallsAndTwiceIsFine) {
  EXPECT_OK(Call());
  server_->Shutdown(absl::Seconds(1));
  EXPECT_THAT(Call(false), StatusIs(absl::StatusCode::kUnavailable, Not("")));
  server_->Shutdown();
}

TEST(Credentials, LoopbackIsRecognised) {
  for (const char* address :
       {"localhost:1", "127.0.0.1:50051", "127.9.9.9:1", "[::1]:1", "unix:/tmp/x", "dns:///localhost:1"}) {
    EXPECT_TRUE(IsLoopback(address)) << address;
  }
  for (const char* address :
       {"0.0.0.0:1", "10.0.0.1:1", "127.evil.example:1", "[::]:1", "example.com:1", "localhost.example.com:1", ""}) {
    EXPECT_FALSE(IsLoopback(address)) << address;
  }
}

TEST(Credentials, PlaintextBeyondLoopbackNeedsTheFlag) {
  EXPECT_THAT(MakeChannel("10.0.0.1:1", {}), StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("--insecure")));
  EXPECT_OK(MakeChannel("10.0.0.1:1", {.security = {.insecure = true}}));
  EXPECT_THAT(RpcServer::Start({.address = "0.0.0.0:0", .security = {}}, {}),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("0.0.0.0:0")));
}

}  // namespace
}  // namespace trainyard
