#include "coordinator/core/trial_names.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/check.h"
#include "base/digest.h"

namespace trainyard::coordinator {
namespace {

constexpr size_t kMaxLabel = 63;
constexpr size_t kParentDigits = 8;

// The finisher of splitmix64 (Steele, Lea and Flood, 2014): every bit of the argument changes half of the result's.
uint64_t Mix(uint64_t x) {
  x += 0x9E3779B97F4A7C15ull;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

}  // namespace

std::string TrialUid(const std::string& parent_uid, int64_t generation, int index) {
  TY_CHECK_GE(index, 0);
  const std::string digest = DigestOf(absl::StrCat(parent_uid, "/", generation));
  return absl::StrFormat("%s-%s-8%s-a%s-%012x", digest.substr(0, 8), digest.substr(8, 4), digest.substr(12, 3),
                         digest.substr(15, 3), index);
}

uint64_t TrialSeed(uint64_t parent_seed, int64_t generation, int index) {
  return Mix(Mix(Mix(parent_seed) + static_cast<uint64_t>(generation)) + static_cast<uint64_t>(index)) >> 1;
}

std::string TrialName(const std::string& parent_name, const std::string& parent_uid, int64_t generation, int index,
                      bool is_taken) {
  const std::string place = absl::StrCat("-g", generation, "-", index);
  if (!is_taken && parent_name.size() + place.size() <= kMaxLabel) return absl::StrCat(parent_name, place);
  const std::string who = absl::StrCat("-", DigestOf(parent_uid).substr(0, kParentDigits));
  std::string cut = parent_name.substr(0, kMaxLabel - place.size() - who.size());
  while (!cut.empty() && cut.back() == '-') cut.pop_back();
  return absl::StrCat(cut, who, place);
}

}  // namespace trainyard::coordinator
