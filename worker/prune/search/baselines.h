// Choices of levels that need no search: where a search starts, and what it is compared with.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "worker/prune/search/genome.h"

namespace trainyard::prune {

// Every module at one level.
Genome UniformGenome(size_t blocks, int32_t level);

// The uniform genome whose count is nearest to the target, and if that is not within `tolerance` * target of it, moved
// on level by level, the last blocks first. InvalidArgument, naming what can be reached, if no genome that is found so
// is near enough.
absl::StatusOr<Genome> GenomeForParameters(const ParameterTable& parameters, int64_t target, double tolerance);

// SPDY (Frantar and Alistarh, arXiv:2201.13096) as ZipLM uses it: the least sum of the layers' errors with at most
// `target` parameters, by dynamic programming
//
//   D[l][b] = min_s D[l-1][b - cost(l, s)] + error(l, s)
//
// over costs in units of their greatest common divisor, or of 1/65536 of their range, rounded up. Of equal sums the
// lower level in the earlier module. InvalidArgument if even the last levels have more parameters.
absl::StatusOr<Genome> SpdyGenome(const ParameterTable& parameters, const LevelTable<double>& errors, int64_t target);

// Whole modules go, that with the least error of its last level first, as long as at least (1 - tolerance) * target
// parameters stay; then, if more than (1 + tolerance) * target are left, one more module goes to the level that comes
// nearest.
Genome DepthGenome(const ParameterTable& parameters, const LevelTable<double>& errors, int64_t target,
                   double tolerance);

}  // namespace trainyard::prune
