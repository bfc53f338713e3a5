// From the options of a qoda_gan job to its nets.
#pragma once

#include <cstdint>
#include <vector>

#include "proto/spec/qoda_gan_options.h"
#include "worker/model/gan/gan_net.h"

namespace trainyard::train {

// `sample_shape`: {channels, 32, 32} or {dim}, as a SampleSource has it. `batch`: samples of one call.
model::GanNetOptions GeneratorOptions(const spec::QodaGanOptions& options, const std::vector<int64_t>& sample_shape,
                                      int64_t batch, int threads);
model::GanNetOptions DiscriminatorOptions(const spec::QodaGanOptions& options, const std::vector<int64_t>& sample_shape,
                                          int64_t batch, int threads);

}  // namespace trainyard::train
