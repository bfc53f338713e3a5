// How often a program for the emulated device has waited for a stream (Stream::Synchronize, Stream::pool), and how many
// bytes copy streams have moved: for tests that code enqueues its work and does not wait. Always 0 in other programs.
#pragma once

#include <cstdint>

namespace trainyard::simt {

int64_t WaitCount();
int64_t CopiedBytes();

// For the device's backend.
void CountWait();
void CountCopy(int64_t bytes);

}  // namespace trainyard::simt
