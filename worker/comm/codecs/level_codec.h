// kernels/codec/level_code.h on the wire.
#pragma once

#include <vector>

#include "kernels/codec/level_code.h"
#include "worker/comm/codecs/packed_codec.h"

namespace trainyard::comm {

struct LevelCodecOptions {
  std::vector<float> levels;  // with the zero: 0 < l_1 < ... < 1, first 0, last 1; 2^(bits-1) of them for `bits` bits
  kernels::LevelNorm norm = kernels::LevelNorm::kLInf;
  int64_t bucket_size = 512;  // 64..8192, a multiple of 8
};
std::unique_ptr<PackedCodec> MakeLevelCodec(const LevelCodecOptions& options);

}  // namespace trainyard::comm
