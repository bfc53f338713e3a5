// The head of an HTTP/1.x request, read strictly: what is malformed is refused, never guessed at. Requests with a body
// are refused too, since nothing here takes one.
#pragma once

#include <cstddef>
#include <map>
#include <string>

#include "absl/strings/string_view.h"

namespace trainyard::coordinator {

struct HttpRequest {
  bool is_head = false;                        // else GET
  std::string path;                            // percent-decoded, begins with "/"
  std::map<std::string, std::string> query;    // decoded; of a name given twice, the first
  std::map<std::string, std::string> headers;  // names in lower case; of a name given twice, the first
  bool keeps_connection = true;                // HTTP/1.1 without "Connection: close"

  // "" if there is none.
  const std::string& Header(const std::string& lower_case_name) const;
  const std::string& Query(const std::string& name) const;
};

struct HttpLimits {
  size_t head_bytes = 16 << 10;
  size_t target_bytes = 4 << 10;
  size_t headers = 100;
  size_t query_values = 32;
};

struct ParsedHead {
  enum class Outcome { kIncomplete, kRequest, kRefused };
  Outcome outcome = Outcome::kIncomplete;
  HttpRequest request;
  size_t bytes = 0;  // of the head, when it is a request
  // Why it was refused: 400, 405, 413, 414, 431 or 505, and a line for people. The connection must then end, since
  // where the next request would begin is not known.
  int status = 0;
  std::string problem;
};

// Looks at what a connection has sent since its last request. Incomplete: more bytes are needed, and allowed.
ParsedHead ParseHead(absl::string_view input, const HttpLimits& limits = {});

}  // namespace trainyard::coordinator
