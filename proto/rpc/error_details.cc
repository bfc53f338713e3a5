#include "proto/rpc/error_details.h"

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "proto/rpc/error_details.pb.h"

namespace trainyard {
namespace {

template <typename Message>
std::string TypeUrl() {
  return absl::StrCat("type.googleapis.com/", Message::descriptor()->full_name());
}

template <typename Message>
void Set(absl::Status* status, const Message& message) {
  if (status->ok()) return;
  status->SetPayload(TypeUrl<Message>(), absl::Cord(message.SerializeAsString()));
}

// A detail that does not parse counts as absent: the code and the sentence still stand.
template <typename Message>
Message Get(const absl::Status& status) {
  Message message;
  const auto payload = status.GetPayload(TypeUrl<Message>());
  if (payload.has_value() && !message.ParseFromString(std::string(*payload))) message.Clear();
  return message;
}

}  // namespace

void SetFieldViolations(absl::Status* status, const std::vector<FieldViolation>& violations) {
  google::rpc::BadRequest detail;
  for (const FieldViolation& violation : violations) {
    auto* out = detail.add_field_violations();
    out->set_field(violation.path);
    out->set_description(violation.text);
  }
  Set(status, detail);
}

void SetErrorInfo(absl::Status* status, absl::string_view reason, const std::map<std::string, std::string>& metadata) {
  google::rpc::ErrorInfo detail;
  detail.set_reason(std::string(reason));
  detail.set_domain(kErrorDomain);
  for (const auto& [key, value] : metadata) (*detail.mutable_metadata())[key] = value;
  Set(status, detail);
}

absl::Status ErrorWithReason(absl::StatusCode code, absl::string_view reason, absl::string_view message,
                             const std::map<std::string, std::string>& metadata) {
  absl::Status status(code, message);
  SetErrorInfo(&status, reason, metadata);
  return status;
}

std::vector<FieldViolation> GetFieldViolations(const absl::Status& status) {
  std::vector<FieldViolation> violations;
  const auto detail = Get<google::rpc::BadRequest>(status);
  for (const auto& violation : detail.field_violations()) {
    violations.push_back({violation.field(), violation.description()});
  }
  return violations;
}

std::string GetErrorReason(const absl::Status& status) {
  return Get<google::rpc::ErrorInfo>(status).reason();
}

std::map<std::string, std::string> GetErrorMetadata(const absl::Status& status) {
  const auto detail = Get<google::rpc::ErrorInfo>(status);
  return {detail.metadata().begin(), detail.metadata().end()};
}

}  // namespace trainyard
