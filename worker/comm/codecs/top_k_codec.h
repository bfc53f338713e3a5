// kernels/codec/top_k.h on the wire, the largest values of each slice. Biased: for error feedback.
#pragma once

#include "worker/comm/codec.h"

namespace trainyard::comm {

struct TopKCodecOptions {
  double density = 0.01;  // (0, 1]: share of a slice's values that travel, at least one
};
std::unique_ptr<Codec> MakeTopKCodec(const TopKCodecOptions& options);

}  // namespace trainyard::comm
