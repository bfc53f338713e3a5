#include "kernels/codec/magnitude_threshold.h"
#include "kernels/transform/index_sets.h"

namespace trainyard::kernels::internal {

void TopIndicesCpu(const TopIndicesArgs& args, Stream&) {
  const int64_t r = args.indices.size();
  if (r == 0) return;
  const float* scores = args.scores.as<float>();
  int32_t* indices = args.indices.as<int32_t>();
  const MagnitudeThreshold threshold = FindMagnitudeThreshold(scores, args.scores.size(), r);
  int64_t ties = threshold.ties;
  int64_t taken = 0;
  for (int64_t i = 0; taken < r; ++i) {
    const uint32_t magnitude = MagnitudeBits(scores[i]);
    if (magnitude < threshold.magnitude) continue;
    if (magnitude == threshold.magnitude && ties-- <= 0) continue;
    indices[taken++] = static_cast<int32_t>(i);
  }
}

void MatchIndicesCpu(const MatchIndicesArgs& args, Stream&) {
  const int32_t* from = args.from.as<int32_t>();
  const int32_t* to = args.to.as<int32_t>();
  int32_t* sources = args.sources.as<int32_t>();
  const int64_t p = args.from.size();
  int64_t at = 0;
  for (int64_t j = 0; j < args.to.size(); ++j) {
    while (at < p && from[at] < to[j]) ++at;
    sources[j] = at < p && from[at] == to[j] ? static_cast<int32_t>(at) : -1;
  }
}

}  // namespace trainyard::kernels::internal
