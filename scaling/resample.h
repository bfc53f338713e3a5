// Resamples of a bootstrap: a pure function of the seed and of which resample it is.
#pragma once

#include <cstdint>
#include <vector>

#include "scaling/law_fit.h"

namespace trainyard::scaling {

// Draws as many runs as there are, with replacement, and sets each run's weight to how often it was drawn. `group`
// keeps the draws of different recipes apart. A resample with fewer than `least_points` different (N, D) determines no
// fit: it is drawn again, up to 100 times, unless the runs themselves have no more.
void Resample(uint64_t seed, int resample, int group, int least_points, std::vector<Observation>* runs);

}  // namespace trainyard::scaling
