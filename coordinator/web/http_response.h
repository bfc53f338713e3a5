// An answer of the web view's server, and the head that goes before its body.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace trainyard::coordinator {

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;

struct HttpResponse {
  int status = 200;
  std::string type = "application/json";
  std::string body = {};
  HttpHeaders headers = {};  // Cache-Control is "no-store" unless given
};

struct HttpHeadOptions {
  const HttpHeaders& common;      // of every answer of the server
  bool keeps_connection = false;  // else the peer is told that it ends
  bool has_length = false;        // of the body; a stream has none
};
// Status line, headers, and the empty line behind them, as of now.
std::string WriteHead(const HttpResponse& response, const HttpHeadOptions& options);

}  // namespace trainyard::coordinator
