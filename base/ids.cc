#include "base/ids.h"

#include <sys/random.h>

#include "absl/strings/str_format.h"
#include "base/check.h"

namespace trainyard {

uint64_t RandomId() {
  uint64_t bits = 0;
  TY_CHECK_EQ(getrandom(&bits, sizeof(bits), 0), static_cast<ssize_t>(sizeof(bits)));
  return bits;
}

std::string NewUuid() {
  const uint64_t high = (RandomId() & ~uint64_t{0xF000}) | 0x4000;                 // version 4
  const uint64_t low = (RandomId() & ~(uint64_t{3} << 62)) | (uint64_t{1} << 63);  // RFC 4122 variant
  return absl::StrFormat("%08x-%04x-%04x-%04x-%012x", high >> 32, (high >> 16) & 0xFFFF, high & 0xFFFF, low >> 48,
                         low & 0xFFFFFFFFFFFF);
}

}  // namespace trainyard
