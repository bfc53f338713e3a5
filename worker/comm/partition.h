// How a vector is cut into one part a rank: element counts as equal as possible, cuts at multiples of kPartGrain. A
// pure function, so no sizes are exchanged.
#pragma once

#include <algorithm>
#include <cstdint>

namespace trainyard::comm {

inline constexpr int64_t kPartGrain = 8;  // elements; packed codecs handle eight values at a time

struct Part {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t size() const { return end - begin; }
};

// Part `index` of [0, count) cut in `parts` at multiples of `grain`. The first parts may be a grain longer than the
// last; parts may be empty.
inline Part PartInGrains(int64_t count, int64_t grain, int parts, int index) {
  const int64_t grains = (count + grain - 1) / grain;
  const int64_t each = grains / parts;
  const int64_t longer = grains % parts;
  const auto cut = [&](int64_t i) { return std::min(count, (i * each + std::min(i, longer)) * grain); };
  return {cut(index), cut(index + 1)};
}

inline Part PartOf(int64_t count, int parts, int index) {
  return PartInGrains(count, kPartGrain, parts, index);
}

}  // namespace trainyard::comm
