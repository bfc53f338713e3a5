#include "coordinator/testing/scrape.h"

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/check.h"
#include "base/unique_fd.h"

namespace trainyard::coordinator {

std::string HttpGet(const std::string& address, const std::string& path) {
  int port = 0;
  TY_CHECK(absl::SimpleAtoi(address.substr(address.rfind(':') + 1), &port));
  const UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<uint16_t>(port));
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd.get(), reinterpret_cast<sockaddr*>(&to), sizeof(to)) != 0) return "";
  const std::string request = absl::StrCat("GET ", path, " HTTP/1.0\r\n\r\n");
  if (write(fd.get(), request.data(), request.size()) != static_cast<ssize_t>(request.size())) return "";
  std::string page;
  char buffer[65536];
  ssize_t got = 0;
  while ((got = read(fd.get(), buffer, sizeof(buffer))) > 0) page.append(buffer, static_cast<size_t>(got));
  return page;
}

std::map<std::string, double> SeriesOf(absl::string_view page) {
  std::map<std::string, double> series;
  for (const absl::string_view line : absl::StrSplit(page, '\n')) {
    if (!absl::StartsWith(line, "trainyard_")) continue;
    const size_t space = line.rfind(' ');
    double value = 0;
    TY_CHECK(absl::SimpleAtod(line.substr(space + 1), &value));
    series[std::string(line.substr(0, space))] = value;
  }
  return series;
}

double SumOf(const std::map<std::string, double>& series, const std::string& name,
             const std::vector<std::string>& labels) {
  double sum = 0;
  for (const auto& [key, value] : series) {
    if (key != name && !absl::StartsWith(key, name + "{")) continue;
    const bool has_all = std::all_of(labels.begin(), labels.end(),
                                     [&](const std::string& label) { return absl::StrContains(key, label); });
    if (has_all) sum += value;
  }
  return sum;
}

}  // namespace trainyard::coordinator
