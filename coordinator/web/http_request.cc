#include "coordinator/web/http_request.h"

#include <algorithm>
#include <optional>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace trainyard::coordinator {
namespace {

const std::string& Find(const std::map<std::string, std::string>& values, const std::string& name) {
  static const auto* const kNone = new std::string();
  const auto found = values.find(name);
  return found == values.end() ? *kNone : found->second;
}

ParsedHead Refuse(int status, std::string problem) {
  ParsedHead head;
  head.outcome = ParsedHead::Outcome::kRefused;
  head.status = status;
  head.problem = std::move(problem);
  return head;
}

// RFC 9110, section 5.6.2.
bool IsToken(absl::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) ||
           absl::string_view("!#$%&'*+-.^_`|~").find(c) != absl::string_view::npos;
  });
}

bool IsFieldValue(absl::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return c == '\t' || (byte >= 0x20 && byte != 0x7F);
  });
}

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// nullopt: a "%" without two hex digits, or a zero byte.
std::optional<std::string> Decode(absl::string_view text, bool plus_is_space) {
  std::string plain;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '+' && plus_is_space) {
      plain += ' ';
    } else if (text[i] != '%') {
      plain += text[i];
    } else {
      if (i + 2 >= text.size()) return std::nullopt;
      const int high = HexDigit(text[i + 1]), low = HexDigit(text[i + 2]);
      if (high < 0 || low < 0 || high + low == 0) return std::nullopt;
      plain += static_cast<char>(high * 16 + low);
      i += 2;
    }
  }
  return plain;
}

// Fills path and query; the reason if that cannot be done.
std::string ReadTarget(absl::string_view target, const HttpLimits& limits, HttpRequest* request) {
  if (target.empty() || target[0] != '/') return "the target does not begin with a slash";
  for (const char c : target) {
    if (static_cast<unsigned char>(c) <= 0x20 || static_cast<unsigned char>(c) >= 0x7F) {
      return "the target holds bytes that must be percent-encoded";
    }
  }
  const std::vector<absl::string_view> parts = absl::StrSplit(target, absl::MaxSplits('?', 1));
  const auto path = Decode(parts[0], /*plus_is_space=*/false);
  if (!path) return "the path is not percent-encoded as it should be";
  request->path = *path;
  if (parts.size() == 1) return "";
  for (const absl::string_view pair : absl::StrSplit(parts[1], '&', absl::SkipEmpty())) {
    const std::vector<absl::string_view> halves = absl::StrSplit(pair, absl::MaxSplits('=', 1));
    const auto name = Decode(halves[0], true), value = Decode(halves.size() > 1 ? halves[1] : "", true);
    if (!name || !value) return "the query is not percent-encoded as it should be";
    if (request->query.size() >= limits.query_values) return "the query has too many values";
    request->query.emplace(*name, *value);
  }
  return "";
}

}  // namespace

const std::string& HttpRequest::Header(const std::string& lower_case_name) const {
  return Find(headers, lower_case_name);
}

const std::string& HttpRequest::Query(const std::string& name) const {
  return Find(query, name);
}

ParsedHead ParseHead(absl::string_view input, const HttpLimits& limits) {
  const size_t end = input.substr(0, limits.head_bytes).find("\r\n\r\n");
  if (end == absl::string_view::npos) {
    if (input.substr(0, limits.head_bytes).find("\r\n") == absl::string_view::npos &&
        input.size() > limits.target_bytes + 32) {
      return Refuse(414, absl::StrCat("the request line is longer than ", limits.target_bytes, " bytes"));
    }
    if (input.size() >= limits.head_bytes) {
      return Refuse(431, absl::StrCat("the head of the request is longer than ", limits.head_bytes, " bytes"));
    }
    return {};
  }
  ParsedHead head;
  head.bytes = end + 4;
  const std::vector<absl::string_view> lines = absl::StrSplit(input.substr(0, end), "\r\n");
  const std::vector<absl::string_view> words = absl::StrSplit(lines[0], ' ');
  if (words.size() != 3 || !IsToken(words[0])) return Refuse(400, "the request line is not METHOD TARGET VERSION");
  if (words[2] != "HTTP/1.1" && words[2] != "HTTP/1.0") {
    return Refuse(absl::StartsWith(words[2], "HTTP/") ? 505 : 400, "only HTTP/1.1 and HTTP/1.0 are spoken here");
  }
  if (words[0] != "GET" && words[0] != "HEAD") {
    return Refuse(405, "this is a view: only GET and HEAD are answered");
  }
  if (words[1].size() > limits.target_bytes) {
    return Refuse(414, absl::StrCat("the target is longer than ", limits.target_bytes, " bytes"));
  }
  HttpRequest& request = head.request;
  request.is_head = words[0] == "HEAD";
  const std::string problem = ReadTarget(words[1], limits, &request);
  if (!problem.empty()) return Refuse(400, problem);

  if (lines.size() - 1 > limits.headers) {
    return Refuse(431, absl::StrCat("the request has more than ", limits.headers, " header lines"));
  }
  int hosts = 0;
  for (size_t i = 1; i < lines.size(); ++i) {
    const size_t colon = lines[i].find(':');
    if (colon == absl::string_view::npos || !IsToken(lines[i].substr(0, colon)) ||
        !IsFieldValue(lines[i].substr(colon + 1))) {
      return Refuse(400, "a header line is not NAME: VALUE");
    }
    const std::string name = absl::AsciiStrToLower(lines[i].substr(0, colon));
    const auto value = std::string(absl::StripAsciiWhitespace(lines[i].substr(colon + 1)));
    if (name == "host") ++hosts;
    if (name == "transfer-encoding" || (name == "content-length" && value != "0")) {
      return Refuse(413, "requests with a body are not taken");
    }
    request.headers.emplace(name, value);
  }
  const bool is_old = words[2] == "HTTP/1.0";
  if (hosts > 1 || (hosts == 0 && !is_old)) return Refuse(400, "exactly one Host header is wanted");
  request.keeps_connection = !is_old && !absl::EqualsIgnoreCase(request.Header("connection"), "close");
  head.outcome = ParsedHead::Outcome::kRequest;
  return head;
}

}  // namespace trainyard::coordinator
