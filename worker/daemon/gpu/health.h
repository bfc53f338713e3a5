// Whether a GPU may run a rank (control-plane.md, CP-37 and CP-21). Pure.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/daemon/gpu/facts.h"

namespace trainyard::daemon {

struct GpuPolicy {
  // Hardware, bus and firmware errors after which the GPU is not to be trusted until the host has rebooted or the GPU
  // was reset. Double-bit and uncontained ECC errors, page retirement failures, NVLink, lost from the bus, GSP.
  std::set<int> fatal_xids = {48, 62, 64, 74, 79, 95, 119, 120};
  // Every XID that is not ignored is fatal, whatever the list above says.
  bool all_are_fatal = false;
  // What a program's own mistake causes (an illegal address, say), as NVIDIA's device plugin sees it: not even logged.
  std::set<int> ignored_xids = {13, 31, 43, 45, 68, 109};
  // Memory that may be in use on a GPU that nobody uses.
  int64_t memory_tolerance_bytes = int64_t{512} << 20;
};

// "48,79" for one of the lists, "all" for all_are_fatal where `all` is given. InvalidArgument names the word that is no
// XID in [1, 10000]. An empty text is an empty list.
absl::StatusOr<std::set<int>> ParseXids(absl::string_view text, bool* all = nullptr);

enum class XidClass { kIgnored, kNoted, kFatal };
XidClass ClassOfXid(int xid, const GpuPolicy& policy);
const char* NameOf(XidClass xid_class);
// "XID 79 (the GPU has fallen off the bus)".
std::string XidText(int xid);

// Why no rank may start on the GPU, or go on there; empty: nothing is wrong with it. `xids` are those since the boot of
// the host. With `must_be_free` nobody may be using its memory: before a rank starts, and after it has gone.
std::string WhyUnhealthy(const GpuFacts& facts, const std::vector<int>& xids, const GpuPolicy& policy,
                         bool must_be_free);

}  // namespace trainyard::daemon
