#include "proto/rpc/status.h"

#include <grpcpp/support/status.h>

#include <string>

#include "absl/strings/cord.h"
#include "proto/rpc/error_details.pb.h"

namespace trainyard {
namespace {

// Details go into HTTP/2 trailers, which peers refuse beyond 8 KiB by default: past this the sentence has to do.
constexpr size_t kMaxDetailBytes = 4096;
constexpr size_t kMaxMessageBytes = 2048;

std::string Shorten(absl::string_view message) {
  if (message.size() <= kMaxMessageBytes) return std::string(message);
  return std::string(message.substr(0, kMaxMessageBytes)) + "...";
}

}  // namespace

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  google::rpc::Status rich;
  rich.set_code(static_cast<int>(status.code()));
  const std::string message = Shorten(status.message());
  status.ForEachPayload([&](absl::string_view type_url, const absl::Cord& payload) {
    auto* detail = rich.add_details();
    detail->set_type_url(std::string(type_url));
    detail->set_value(std::string(payload));
  });
  const auto code = static_cast<grpc::StatusCode>(status.code());
  if (rich.details().empty() || rich.ByteSizeLong() > kMaxDetailBytes) return grpc::Status(code, message);
  rich.set_message(message);
  return grpc::Status(code, message, rich.SerializeAsString());
}

absl::Status FromGrpcStatus(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  absl::Status result(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
  google::rpc::Status rich;
  // Details that do not parse come from something that is not ours; code and sentence still stand.
  if (rich.ParseFromString(status.error_details())) {
    for (const auto& detail : rich.details()) result.SetPayload(detail.type_url(), absl::Cord(detail.value()));
  }
  return result;
}

}  // namespace trainyard
