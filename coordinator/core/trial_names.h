// Who a trial is, as a function of who asked for it and where it stands: the same question has the same answer after
// any crash, so a trial cannot be made twice.
#pragma once

#include <cstdint>
#include <string>

namespace trainyard::coordinator {

// In the form of a UUID (version 8). Uids of one generation sort by index. `index` is in [0, 2^48).
std::string TrialUid(const std::string& parent_uid, int64_t generation, int index);

// A seed in [0, 2^63).
uint64_t TrialSeed(uint64_t parent_seed, int64_t generation, int index);

// "<parent>-g<generation>-<index>". If that is longer than a label may be, or `is_taken` by another job, the parent's
// name is cut and followed by 8 digits that stand for its uid.
std::string TrialName(const std::string& parent_name, const std::string& parent_uid, int64_t generation, int index,
                      bool is_taken);

}  // namespace trainyard::coordinator
