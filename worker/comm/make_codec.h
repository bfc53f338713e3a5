// From a setting to a codec: the one place that knows all codecs.
#pragma once

#include <memory>

#include "worker/comm/codec.h"
#include "worker/comm/codecs/packed_codec.h"
#include "worker/comm/exchange_state.h"

namespace trainyard::comm {

// The setting's code table must be sound (CodecSet checks those that come from outside). PowerSGD, which is no codec of
// slices, gives identity: what it does not compress travels so.
std::unique_ptr<Codec> MakeCodec(const CodecSetting& setting);

// Without entropy coding; null for codecs whose codes cannot be entropy coded.
std::unique_ptr<PackedCodec> MakePackedCodec(const CodecSetting& setting);

}  // namespace trainyard::comm
