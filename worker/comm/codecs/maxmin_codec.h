// kernels/codec/maxmin.h on the wire.
#pragma once

#include "kernels/codec/code.h"
#include "worker/comm/codecs/packed_codec.h"

namespace trainyard::comm {

struct MaxminCodecOptions {
  int bits = 4;               // 1..8
  int64_t bucket_size = 512;  // 64..8192, a multiple of 8
  kernels::CodeRounding rounding = kernels::CodeRounding::kStochastic;
};
std::unique_ptr<PackedCodec> MakeMaxminCodec(const MaxminCodecOptions& options);

}  // namespace trainyard::comm
