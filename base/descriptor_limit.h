// How many files and sockets this process may have open at a time.
#pragma once

#include <cstdint>

namespace trainyard {

// Raises the limit (the soft one, 1,024 under most shells and services) to what the process may take without privileges
// (the hard one), and returns what holds now. Programs with a connection for each peer call it at their start; they
// must not use select(2), whose sets end at 1,024.
int64_t RaiseDescriptorLimit();

}  // namespace trainyard
