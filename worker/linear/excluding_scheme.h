// A scheme for some layers of a network, with the rest computing as stored.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "worker/linear/linear_scheme.h"

namespace trainyard::linear {

// Sites whose name matches one of the patterns (base/pattern.h) are dense.
std::unique_ptr<LinearScheme> MakeExcludingScheme(std::unique_ptr<LinearScheme> scheme,
                                                  std::vector<std::string> patterns);

}  // namespace trainyard::linear
