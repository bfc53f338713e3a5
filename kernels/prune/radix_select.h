// The k smallest of many keys, found digit by digit from the top out of histograms alone: the keys may lie anywhere, in
// several tensors or on several ranks, as long as somebody adds up 256 counts a digit. The result is exact and the same
// for any division of the keys.
//
//   RadixSelect select(k, 4);
//   while (!select.done()) {
//     ... counts[d] = keys whose bits above select.digit() are its prefix and whose digit is d, summed over all shards
//     select.Take(counts);
//   }
//   select.threshold(): keys below `key` are among the k; of those equal to it, the first `ties`
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "absl/types/span.h"

namespace trainyard::kernels {

// Eight bits of a 64-bit key.
struct RadixDigit {
  uint64_t prefix = 0;  // the bits above the digit, the rest 0
  int shift = 56;       // digit = (key >> shift) & 255
};

inline constexpr int64_t kAllTies = std::numeric_limits<int64_t>::max();

struct SelectThreshold {
  uint64_t key = 0;
  int64_t ties = 0;  // kAllTies: every key equal to `key`
};

class RadixSelect {
 public:
  // Selects the `count` smallest keys, 0 <= count <= the number of keys, of which the top `digits` (1..8) digits are
  // compared; the bits below are 0 in every key.
  RadixSelect(int64_t count, int digits);

  bool done() const { return left_digits_ == 0; }
  const RadixDigit& digit() const { return digit_; }
  // 256 counts of digit(), of all shards. Call until done().
  void Take(absl::Span<const uint64_t> counts);
  // Once done().
  SelectThreshold threshold() const { return threshold_; }

 private:
  int left_digits_;
  int64_t remaining_;  // of the keys that have the prefix, so many are selected
  RadixDigit digit_;
  SelectThreshold threshold_;
};

// How many ties fall to each shard if the shards, in the order of their elements, have `equal` keys equal to the
// threshold's.
std::vector<int64_t> DivideTies(int64_t ties, absl::Span<const uint64_t> equal);

// How many of `elements` are pruned at `parts_per_million`: the whole part of the product. In whole numbers, because
// 0.29 * 100 is 28.99... in floating point.
inline constexpr int64_t PrunedCount(int64_t elements, int64_t parts_per_million) {
  return static_cast<int64_t>(static_cast<__int128>(elements) * parts_per_million / 1'000'000);
}
// A share in [0, 1] to the nearest millionth.
int64_t PartsPerMillion(double share);

}  // namespace trainyard::kernels
