#include "worker/tools/tool.h"

#include <iostream>

#include "absl/strings/str_format.h"

namespace trainyard::tools {

int Finish(const absl::Status& status) {
  if (status.ok()) return 0;
  std::cout.flush();
  std::cerr << "error: " << status.message() << "\n";
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
      return 2;
    case absl::StatusCode::kNotFound:
      return 3;
    case absl::StatusCode::kPermissionDenied:
      return 4;
    default:
      return 1;
  }
}

std::string BytesText(int64_t bytes) {
  if (bytes < 1024) return absl::StrFormat("%d B", bytes);
  double value = static_cast<double>(bytes);
  const char* const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB"};
  int unit = -1;
  while (value >= 1024 && unit < 4) {
    value /= 1024;
    ++unit;
  }
  return absl::StrFormat("%.2f %s", value, units[unit]);
}

std::string CountText(double count) {
  const char* const units[] = {"", " k", " M", " G", " T", " P", " E"};
  int unit = 0;
  while (count >= 1000 && unit < 6) {
    count /= 1000;
    ++unit;
  }
  return absl::StrFormat(unit == 0 ? "%.0f%s" : "%.2f%s", count, units[unit]);
}

}  // namespace trainyard::tools
