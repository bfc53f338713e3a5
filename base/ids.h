// Random identifiers from the kernel's generator. For names only; a job's numbers come from Philox.
#pragma once

#include <cstdint>
#include <string>

namespace trainyard {

// Version-4 UUID, lower case, 36 characters.
std::string NewUuid();

// 64 random bits.
uint64_t RandomId();

}  // namespace trainyard
