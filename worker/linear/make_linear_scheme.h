// The only place that knows all linear schemes.
#pragma once

#include <memory>

#include "absl/status/status.h"
#include "proto/spec/linear_options.h"
#include "worker/linear/linear_scheme.h"
#include "worker/linear/mask_probe.h"

namespace trainyard::linear {

// `options` are those of a parsed spec.
std::unique_ptr<LinearScheme> MakeLinearScheme(const spec::LinearOptions& options);

// What the scheme's gradient masks stop; null for a scheme without masks (only quest and quartet have some). Layers
// that are excluded are the caller's to pass by.
std::unique_ptr<MaskProbe> MakeMaskProbe(const spec::LinearOptions& options);

// InvalidArgument that names the site, the size and what it must be a multiple of, if the scheme does not define such a
// layer. A scheme's calls may rely on it.
absl::Status CheckSite(const spec::LinearOptions& options, const LinearSite& site);

}  // namespace trainyard::linear
