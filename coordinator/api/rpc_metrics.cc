#include "coordinator/api/rpc_metrics.h"

#include <google/protobuf/descriptor.h>
#include <prometheus/counter.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <map>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/mutex.h"
#include "proto/v1/coordinator.pb.h"
#include "proto/v1/worker.pb.h"

namespace trainyard::coordinator {
namespace {

using prometheus::BuildCounter;
using prometheus::BuildHistogram;
using prometheus::Counter;
using prometheus::Family;
using prometheus::Histogram;
using Labels = std::map<std::string, std::string>;

constexpr char kOther[] = "other";

// Unary calls take milliseconds; sessions and watches hours.
const Histogram::BucketBoundaries kSeconds = {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1,
                                              0.25,   0.5,   1,      5,     10,   60,    600,  3600};

// "/trainyard.v1.Jobs/Submit" -> "Jobs/Submit"
std::string ShortMethod(absl::string_view method) {
  if (!method.empty() && method.front() == '/') method.remove_prefix(1);
  const size_t slash = method.find('/');
  const size_t dot = method.substr(0, slash).rfind('.');
  return std::string(dot == absl::string_view::npos ? method : method.substr(dot + 1));
}

std::string CodeLabel(absl::StatusCode code) {
  const std::string name = absl::StatusCodeToString(code);
  return name.empty() ? "unknown" : absl::AsciiStrToLower(name);
}

}  // namespace

struct RpcMetrics::Families {
  struct Method {
    Labels labels;
    Counter* started;
    Histogram* seconds;
    std::map<absl::StatusCode, Counter*> handled;  // those with a code that has occurred, and OK
  };

  explicit Families(prometheus::Registry* registry)
      : started(BuildCounter()
                    .Name("trainyard_grpc_server_started_total")
                    .Help("Calls that have come, by method")
                    .Register(*registry)),
        handled(BuildCounter()
                    .Name("trainyard_grpc_server_handled_total")
                    .Help("Calls that have ended, by method and code")
                    .Register(*registry)),
        seconds(BuildHistogram()
                    .Name("trainyard_grpc_server_handling_seconds")
                    .Help("From the start of a call to its status; of streams, how long they were open")
                    .Register(*registry)) {}

  Method& Find(absl::string_view wire_name, bool is_stream) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    const auto found = methods.find(std::string(wire_name));
    if (found != methods.end()) return found->second;
    if (methods.size() >= static_cast<size_t>(kMaxMethods)) return Add(kOther, is_stream);
    return Add(wire_name, is_stream);
  }

  Method& Add(absl::string_view wire_name, bool is_stream) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    const auto [entry, is_new] = methods.try_emplace(std::string(wire_name));
    Method& method = entry->second;
    if (!is_new) return method;
    method.labels = {{"method", ShortMethod(wire_name)}, {"type", is_stream ? "stream" : "unary"}};
    method.started = &started.Add(method.labels);
    method.seconds = &seconds.Add(method.labels, kSeconds);
    Handled(method, absl::StatusCode::kOk);
    return method;
  }

  Counter& Handled(Method& method, absl::StatusCode code) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) {
    Counter*& counter = method.handled[code];
    if (counter == nullptr) {
      Labels labels = method.labels;
      labels["code"] = CodeLabel(code);
      counter = &handled.Add(labels);
    }
    return *counter;
  }

  Family<Counter>& started;
  Family<Counter>& handled;
  Family<Histogram>& seconds;
  Mutex mutex;
  std::map<std::string, Method> methods ABSL_GUARDED_BY(mutex);  // by their name on the wire
};

RpcMetrics::RpcMetrics(prometheus::Registry* registry) : families_(std::make_unique<Families>(registry)) {
  MutexLock lock(&families_->mutex);
  for (const google::protobuf::FileDescriptor* file :
       {v1::SubmitRequest::descriptor()->file(), v1::WorkerMessage::descriptor()->file()}) {
    for (int i = 0; i < file->service_count(); ++i) {
      const google::protobuf::ServiceDescriptor& service = *file->service(i);
      for (int k = 0; k < service.method_count(); ++k) {
        const google::protobuf::MethodDescriptor& method = *service.method(k);
        families_->Add(absl::StrCat("/", service.full_name(), "/", method.name()),
                       method.client_streaming() || method.server_streaming());
      }
    }
  }
}

RpcMetrics::~RpcMetrics() = default;

void RpcMetrics::OnStarted(absl::string_view method, bool is_stream) {
  MutexLock lock(&families_->mutex);
  families_->Find(method, is_stream).started->Increment();
}

void RpcMetrics::OnHandled(absl::string_view method, bool is_stream, absl::StatusCode code, absl::Duration took) {
  MutexLock lock(&families_->mutex);
  Families::Method& found = families_->Find(method, is_stream);
  families_->Handled(found, code).Increment();
  found.seconds->Observe(absl::ToDoubleSeconds(took));
}

}  // namespace trainyard::coordinator
