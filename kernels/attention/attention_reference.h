// Attention and its gradient in double, straight from the formulas: what the tests compare with.
#pragma once

#include <vector>

#include "kernels/attention/attention.h"

namespace trainyard::kernels::testing {

struct AttentionReference {
  std::vector<double> o, lse;
};

AttentionReference ReferenceAttention(const AttentionShape& shape, const std::vector<double>& qkv, double scale);

// `o` is what the backward is given, which bf16 storage has rounded.
std::vector<double> ReferenceAttentionGradient(const AttentionShape& shape, const std::vector<double>& qkv,
                                               const std::vector<double>& o, const std::vector<double>& dout,
                                               double scale);

}  // namespace trainyard::kernels::testing
