// kernels/codec/sign_mean.h on the wire. Biased: for error feedback.
#pragma once

#include "worker/comm/codecs/packed_codec.h"

namespace trainyard::comm {

struct SignMeanCodecOptions {
  int64_t bucket_size = 512;  // 64..8192, a multiple of 8
};
std::unique_ptr<PackedCodec> MakeSignMeanCodec(const SignMeanCodecOptions& options);

}  // namespace trainyard::comm
