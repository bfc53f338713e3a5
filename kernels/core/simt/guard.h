// Finds host code that touches device memory too early. With TRAINYARD_SIMT_GUARD=1 in the environment, memory of the
// emulated device is closed to the host (PROT_NONE) from a kernel's launch until a stream is synchronised, so that what
// would be a race on a real device is a SIGSEGV here; and a kernel that is given a pointer to other memory aborts. For
// programs that use one stream at a time.
#pragma once

#include <cstdint>

namespace trainyard::simt {

void AddGuardedMemory(void* memory, int64_t bytes);
void RemoveGuardedMemory(void* memory);
void OpenGuardedMemory();
void CloseGuardedMemory();
// Aborts if the guard is on and `pointer` (not null) is in no memory of the device.
void CheckReachable(const void* pointer);

}  // namespace trainyard::simt
