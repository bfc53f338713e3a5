#include "coordinator/web/http_response.h"

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace trainyard::coordinator {
namespace {

const char* ReasonOf(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 304:
      return "Not Modified";
    case 400:
      return "Bad Request";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 413:
      return "Content Too Large";
    case 414:
      return "URI Too Long";
    case 421:
      return "Misdirected Request";
    case 431:
      return "Request Header Fields Too Large";
    case 500:
      return "Internal Server Error";
    case 503:
      return "Service Unavailable";
    case 505:
      return "HTTP Version Not Supported";
    default:
      return "Unknown";
  }
}

}  // namespace

std::string WriteHead(const HttpResponse& response, const HttpHeadOptions& options) {
  std::string head = absl::StrCat(
      "HTTP/1.1 ", response.status, " ", ReasonOf(response.status),
      "\r\nDate: ", absl::FormatTime("%a, %d %b %Y %H:%M:%S GMT", absl::Now(), absl::UTCTimeZone()), "\r\n");
  if (response.status != 304) absl::StrAppend(&head, "Content-Type: ", response.type, "\r\n");
  if (options.has_length && response.status != 304)
    absl::StrAppend(&head, "Content-Length: ", response.body.size(), "\r\n");
  absl::StrAppend(&head, "Connection: ", options.keeps_connection ? "keep-alive" : "close", "\r\n");
  bool says_cache = false;
  for (const HttpHeaders* headers : {&options.common, &response.headers}) {
    for (const auto& [name, value] : *headers) {
      absl::StrAppend(&head, name, ": ", value, "\r\n");
      says_cache |= name == "Cache-Control";
    }
  }
  if (!says_cache) absl::StrAppend(&head, "Cache-Control: no-store\r\n");
  return absl::StrCat(head, "\r\n");
}

}  // namespace trainyard::coordinator
