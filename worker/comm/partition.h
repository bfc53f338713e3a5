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

// Part `index` of [0, count) cut in `parts`. The first parts may be a grain longer than the last; parts may be empty.
inline Part PartOf(int64_t count, int parts, int index) {
  const int64_t grains = (count + kPartGrain - 1) / kPartGrain;
  const int64_t each = grains / parts;
  const int64_t longer = grains % parts;
  const auto cut = [&](int64_t i) { return std::min(count, (i * each + std::min(i, longer)) * kPartGrain); };
  return {cut(index), cut(index + 1)};
}

}  // namespace trainyard::comm
