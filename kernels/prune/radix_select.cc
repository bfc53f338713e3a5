#include "kernels/prune/radix_select.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace trainyard::kernels {

RadixSelect::RadixSelect(int64_t count, int digits) : left_digits_(count == 0 ? 0 : digits), remaining_(count) {
  TY_CHECK_GE(count, 0);
  TY_CHECK_GE(digits, 1);
  TY_CHECK_LE(digits, 8);
}

void RadixSelect::Take(absl::Span<const uint64_t> counts) {
  TY_CHECK(!done());
  TY_CHECK_EQ(counts.size(), 256u);
  size_t value = 0;
  while (value < 256 && static_cast<int64_t>(counts[value]) < remaining_) {
    remaining_ -= static_cast<int64_t>(counts[value]);
    ++value;
  }
  TY_CHECK_LT(value, 256u);  // fewer keys than were asked for
  digit_.prefix |= static_cast<uint64_t>(value) << digit_.shift;
  --left_digits_;
  if (static_cast<int64_t>(counts[value]) == remaining_) {  // all of them: lower digits need no look
    left_digits_ = 0;
    threshold_ = {digit_.prefix | ((uint64_t{1} << digit_.shift) - 1), kAllTies};
  } else if (left_digits_ == 0) {
    threshold_ = {digit_.prefix, remaining_};
  } else {
    digit_.shift -= 8;
  }
}

std::vector<int64_t> DivideTies(int64_t ties, absl::Span<const uint64_t> equal) {
  std::vector<int64_t> shares;
  for (const uint64_t here : equal) {
    shares.push_back(ties == kAllTies ? kAllTies : std::min(ties, static_cast<int64_t>(here)));
    if (ties != kAllTies) ties -= shares.back();
  }
  return shares;
}

int64_t PartsPerMillion(double share) {
  TY_CHECK_GE(share, 0);
  TY_CHECK_LE(share, 1);
  return std::llround(share * 1e6);
}

}  // namespace trainyard::kernels
