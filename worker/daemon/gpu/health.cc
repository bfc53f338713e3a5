#include "worker/daemon/gpu/health.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace trainyard::daemon {
namespace {

constexpr int kLargestXid = 10'000;
constexpr size_t kMostNamedProcesses = 4;

// From NVIDIA's catalogue of XID errors.
const char* MeaningOf(int xid) {
  switch (xid) {
    case 48:
      return "double-bit ECC error";
    case 62:
      return "halt of the GPU's internal microcontroller";
    case 64:
      return "a bad row or page could not be recorded for remapping";
    case 74:
      return "NVLink error";
    case 79:
      return "the GPU has fallen off the bus";
    case 95:
      return "uncontained ECC error";
    case 119:
    case 120:
      return "the GPU's system processor (GSP) does not answer";
    default:
      return nullptr;
  }
}

std::string RecoveryText(int action) {
  switch (action) {
    case 1:
      return "reset the GPU";
    case 2:
      return "reboot the host";
    case 3:
      return "drain peer-to-peer traffic and reset";
    case 4:
      return "drain and reset the GPU";
    default:
      return absl::StrCat("recovery action ", action);
  }
}

std::string Mebibytes(int64_t bytes) {
  return absl::StrCat(bytes >> 20, " MiB");
}

}  // namespace

absl::StatusOr<std::set<int>> ParseXids(absl::string_view text, bool* all) {
  std::set<int> xids;
  if (all != nullptr) *all = text == "all";
  if (text.empty() || (all != nullptr && *all)) return xids;
  for (absl::string_view word : absl::StrSplit(text, ',')) {
    word = absl::StripAsciiWhitespace(word);
    int xid = 0;
    if (!absl::SimpleAtoi(word, &xid) || xid < 1 || xid > kLargestXid) {
      return absl::InvalidArgumentError(absl::StrCat("'", word, "' is not an XID in [1, ", kLargestXid, "]"));
    }
    xids.insert(xid);
  }
  return xids;
}

XidClass ClassOfXid(int xid, const GpuPolicy& policy) {
  if (policy.ignored_xids.count(xid) > 0) return XidClass::kIgnored;
  return policy.all_are_fatal || policy.fatal_xids.count(xid) > 0 ? XidClass::kFatal : XidClass::kNoted;
}

const char* NameOf(XidClass xid_class) {
  switch (xid_class) {
    case XidClass::kIgnored:
      return "ignored";
    case XidClass::kNoted:
      return "noted";
    case XidClass::kFatal:
      return "fatal";
  }
  return "noted";
}

std::string XidText(int xid) {
  const char* meaning = MeaningOf(xid);
  return meaning == nullptr ? absl::StrCat("XID ", xid) : absl::StrCat("XID ", xid, " (", meaning, ")");
}

std::string WhyUnhealthy(const GpuFacts& facts, const std::vector<int>& xids, const GpuPolicy& policy,
                         bool must_be_free) {
  // Before the silence that most of them lead to: it names the cause.
  for (const int xid : xids) {
    if (ClassOfXid(xid, policy) == XidClass::kFatal) return absl::StrCat(XidText(xid), " since the host's boot");
  }
  if (!facts.error.empty()) return absl::StrCat("the GPU does not answer: ", facts.error);
  if (facts.row_remap_failed.value_or(false)) return "a bad row of its memory could not be remapped";
  if (facts.recovery_action.value_or(0) != 0) {
    return absl::StrCat("the driver asks to ", RecoveryText(*facts.recovery_action));
  }
  if (must_be_free && facts.used_bytes > policy.memory_tolerance_bytes) {
    std::string text =
        absl::StrCat(Mebibytes(facts.used_bytes), " of its memory are in use while nobody should use it (",
                     Mebibytes(policy.memory_tolerance_bytes), " are tolerated)");
    for (size_t i = 0; i < std::min(facts.processes.size(), kMostNamedProcesses); ++i) {
      absl::StrAppend(&text, i == 0 ? ", by process " : ", ", facts.processes[i].pid);
    }
    return text;
  }
  return "";
}

}  // namespace trainyard::daemon
