// What CopyStream is made of, by backend.
#pragma once

#include <cstdint>

namespace trainyard::kernels::internal {

// A stream that is given copies only; for the rest as CreateCudaStream's.
void* CreateCudaCopyStream();
// `to` and `from`: in memory of AllocateCudaMemory, which do not overlap.
void EnqueueCudaCopy(void* stream, void* to, const void* from, int64_t bytes);

}  // namespace trainyard::kernels::internal
