// How often a program for the emulated device has waited for a stream (Stream::Synchronize, Stream::pool): for tests
// that code enqueues its work and does not wait. Always 0 in other programs.
#pragma once

#include <cstdint>

namespace trainyard::simt {

int64_t WaitCount();
void CountWait();  // for the device's backend

}  // namespace trainyard::simt
