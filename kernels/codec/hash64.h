// XXH3-64 of a buffer: what ranks compare to see that they hold the same bits. Depends on the order of the bytes; finds
// divergence, not malice. Around memory speed.
#pragma once

#include <cstddef>
#include <cstdint>

namespace trainyard::kernels {

// `seed`: the hash of what came before, to chain several buffers.
uint64_t Hash64(const void* data, size_t bytes, uint64_t seed = 0);

}  // namespace trainyard::kernels
