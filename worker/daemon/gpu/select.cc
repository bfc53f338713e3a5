#include "worker/daemon/gpu/select.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace trainyard::daemon {
namespace {

std::string NameOf(const GpuIdentity& gpu) {
  return absl::StrCat("GPU ", gpu.index, " (", gpu.uuid, ", ", gpu.name, ")");
}

constexpr char kMig[] = ": MIG mode is on, and MIG instances are not supported (to switch it off: nvidia-smi -mig 0)";

}  // namespace

absl::StatusOr<GpuSelection> SelectGpus(absl::string_view wanted, const std::vector<GpuIdentity>& present,
                                        int expected) {
  GpuSelection selection;
  if (wanted == "none") return selection;
  if (wanted == "auto" || wanted == "all") {
    for (const GpuIdentity& gpu : present) {
      if (gpu.is_mig) {
        selection.skipped.push_back(absl::StrCat(NameOf(gpu), kMig));
      } else {
        selection.gpus.push_back(gpu);
      }
    }
    for (int i = static_cast<int>(present.size()); i < expected; ++i) {
      GpuIdentity& missing = selection.gpus.emplace_back();
      missing.index = i;
      missing.error = absl::StrCat("the driver lists ", present.size(), " GPUs where ", expected, " are expected");
    }
    return selection;
  }
  for (absl::string_view word : absl::StrSplit(wanted, ',')) {
    word = absl::StripAsciiWhitespace(word);
    int index = -1;
    const bool is_index = absl::SimpleAtoi(word, &index);
    const auto found = std::find_if(present.begin(), present.end(), [&](const GpuIdentity& gpu) {
      return is_index ? gpu.index == index : !word.empty() && gpu.uuid == word;
    });
    if (found == present.end()) {
      return absl::InvalidArgumentError(absl::StrCat("--gpus: '", word, "' is neither an index in [0, ", present.size(),
                                                     ") nor the UUID of a GPU here (nvidia-smi -L lists them)"));
    }
    if (found->is_mig) return absl::InvalidArgumentError(absl::StrCat("--gpus: ", NameOf(*found), kMig));
    for (const GpuIdentity& chosen : selection.gpus) {
      if (chosen.index == found->index) {
        return absl::InvalidArgumentError(absl::StrCat("--gpus: '", word, "' names GPU ", found->index, " again"));
      }
    }
    selection.gpus.push_back(*found);
  }
  std::sort(selection.gpus.begin(), selection.gpus.end(),
            [](const GpuIdentity& a, const GpuIdentity& b) { return a.index < b.index; });
  for (const GpuIdentity& gpu : present) {
    const bool is_chosen = std::any_of(selection.gpus.begin(), selection.gpus.end(),
                                       [&](const GpuIdentity& chosen) { return chosen.index == gpu.index; });
    if (!is_chosen) selection.skipped.push_back(absl::StrCat(NameOf(gpu), ": not in --gpus"));
  }
  return selection;
}

}  // namespace trainyard::daemon
