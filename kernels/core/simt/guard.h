// Finds host code that touches device memory too early. With TRAINYARD_SIMT_GUARD=1 in the environment, memory of the
// emulated device is closed to the host (PROT_NONE) from a kernel's launch until a stream is synchronised, so that what
// would be a race on a real device is a SIGSEGV here. For programs that use one stream at a time.
#pragma once

#include <cstdint>

namespace trainyard::simt {

void AddGuardedMemory(void* memory, int64_t bytes);
void RemoveGuardedMemory(void* memory);
void OpenGuardedMemory();
void CloseGuardedMemory();

}  // namespace trainyard::simt
