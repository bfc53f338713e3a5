// What the commands of trainyard-local share: exit codes, errors, numbers for people.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"

namespace trainyard::tools {

// Prints "error: ..." for a bad status and returns the exit code of CP-73: 0 done, 1 failed, 2 the request cannot be,
// 3 not found, 4 denied.
int Finish(const absl::Status& status);

std::string BytesText(int64_t bytes);  // "1.53 GiB"
std::string CountText(double count);   // "25.4 M", "1.2 T"

}  // namespace trainyard::tools
