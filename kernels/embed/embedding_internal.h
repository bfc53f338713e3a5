#pragma once

#include "kernels/embed/embedding.h"

namespace trainyard::kernels::internal {

void EmbeddingForwardCpu(const EmbeddingForwardArgs& args, Stream& stream);
void EmbeddingBackwardCpu(const EmbeddingBackwardArgs& args, Stream& stream);

}  // namespace trainyard::kernels::internal
