// The files of coordinator/web/page, as they were when the program was built (embed.py).
#pragma once

#include <vector>

#include "absl/strings/string_view.h"

namespace trainyard::coordinator {

struct PageFile {
  absl::string_view path;  // "/app.js"
  absl::string_view type;
  absl::string_view etag;  // with its quotes
  absl::string_view content;
};

const std::vector<PageFile>& PageFiles();

}  // namespace trainyard::coordinator
