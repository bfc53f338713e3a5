// Wasserstein GANs with simultaneous updates (docs/methods/qoda.md).
//
// Metrics of a unit, which is one update: loss_d, loss_g, gradient_penalty, gradient_norm; eta and gamma, or lr_d and
// lr_g; exchanges (oracle calls: 1, of extra_adam 2), images_per_second (real samples seen), update_dropped (0 or 1);
// on steps that evaluate sliced_wasserstein, and modes_covered and high_quality_fraction (mixtures) or frechet_distance
// (labelled images); with several ranks what worker/train/exchange_metrics.h lists. Sections: prepare, train, evaluate,
// export.
//
// Sample grids are samples/step-<8 digits>.png in the attempt's directory.
//
// Result of rank 0: artifact "generator" (a folder: generator.safetensors, the weights that are scored, those of the
// averages, and discriminator.safetensors), artifact "samples" (the folder of grids, if the data can be drawn), values
// loss_d, loss_g, updates, parameters, and the scores of the end.
#pragma once

#include <memory>

#include "proto/spec/job_options.h"
#include "worker/jobs/job.h"

namespace trainyard::jobs {

std::unique_ptr<Job> MakeQodaGanJob(const spec::JobOptions& options);

}  // namespace trainyard::jobs
