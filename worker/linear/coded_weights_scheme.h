// Weights that a network has as codes and scales only (kernels/quant/coded_matrix.h), for any scheme: each call decodes
// its layer's weights into the workspace and hands them to the scheme. The dequantized matrix exists for one product at
// a time, and costs a pass over it.
#pragma once

#include <memory>
#include <vector>

#include "kernels/quant/coded_matrix.h"
#include "worker/linear/linear_scheme.h"

namespace trainyard::linear {

// `weights`: by LinearSite::index, out * in elements; borrowed memory. A layer without an entry has its weights as
// usual, and so has a call whose w has data.
std::unique_ptr<LinearScheme> MakeCodedWeightsScheme(std::unique_ptr<LinearScheme> scheme,
                                                     std::vector<kernels::CodedMatrix> weights);

}  // namespace trainyard::linear
