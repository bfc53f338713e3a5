// Codes of 1..8 bits side by side: eight codes become `bits` bytes, code j in bits j*bits .. j*bits + bits-1 of a
// little-endian word (torch_cgx's order). What remains of the last byte is zero.
#pragma once

#include <cstdint>

namespace trainyard::kernels {

inline constexpr int64_t PackedBytes(int64_t count, int bits) {
  return (count * bits + 7) / 8;
}

// codes[0 .. count-1], each below 2^bits. Writes exactly PackedBytes.
void PackCodes(const uint8_t* codes, int64_t count, int bits, uint8_t* packed);

// Reads exactly PackedBytes, writes exactly `count` codes.
void UnpackCodes(const uint8_t* packed, int64_t count, int bits, uint8_t* codes);

}  // namespace trainyard::kernels
