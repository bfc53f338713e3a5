#include "base/http/status_server.h"

#include <civetweb.h>
#include <prometheus/counter.h>
#include <prometheus/registry.h>

#include <atomic>

#include "base/testing/status_matchers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace trainyard {
namespace {

using ::testing::HasSubstr;

struct Reply {
  int code = 0;
  std::string body;
};

Reply Get(int port, const std::string& path) {
  char error[200];
  mg_connection* connection =
      mg_download("127.0.0.1", port, 0, error, sizeof(error), "GET %s HTTP/1.0\r\n\r\n", path.c_str());
  EXPECT_NE(connection, nullptr) << error;
  if (connection == nullptr) return {};
  Reply reply{mg_get_response_info(connection)->status_code, ""};
  char buffer[4096];
  for (int read = 0; (read = mg_read(connection, buffer, sizeof(buffer))) > 0;) {
    reply.body.append(buffer, static_cast<size_t>(read));
  }
  mg_close_connection(connection);
  return reply;
}

class StatusServerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto registry = std::make_shared<prometheus::Registry>();
    prometheus::BuildCounter().Name("things_total").Help("things").Register(*registry).Add({}).Increment(3);
    ASSERT_OK_AND_ASSIGN(
        server_,
        StatusServer::Start(
            {.listen = "127.0.0.1:0",
             .metrics = registry,
             .is_live = [] { return absl::OkStatus(); },
             .is_ready = [this] { return ready_ ? absl::OkStatus() : absl::UnavailableError("the disk is full"); }}));
  }

  std::atomic<bool> ready_ = false;
  std::unique_ptr<StatusServer> server_;
};

TEST_F(StatusServerTest, ServesMetrics) {
  const Reply reply = Get(server_->port(), "/metrics");
  EXPECT_EQ(reply.code, 200);
  EXPECT_THAT(reply.body, HasSubstr("things_total 3"));
}

TEST_F(StatusServerTest, ProbesTellLiveFromReady) {
  EXPECT_EQ(Get(server_->port(), "/livez").code, 200);
  const Reply before = Get(server_->port(), "/readyz");
  EXPECT_EQ(before.code, 503);
  EXPECT_EQ(before.body, "the disk is full\n");
  ready_ = true;
  EXPECT_EQ(Get(server_->port(), "/readyz").code, 200);
  EXPECT_EQ(Get(server_->port(), "/other").code, 404);
}

TEST_F(StatusServerTest, ATakenPortIsAnError) {
  const std::string taken = "127.0.0.1:" + std::to_string(server_->port());
  const auto second = StatusServer::Start({.listen = taken,
                                           .metrics = std::make_shared<prometheus::Registry>(),
                                           .is_live = [] { return absl::OkStatus(); },
                                           .is_ready = [] { return absl::OkStatus(); }});
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(second.status().message()), HasSubstr(taken));
}

}  // namespace
}  // namespace trainyard
