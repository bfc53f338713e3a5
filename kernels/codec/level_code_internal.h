#pragma once

#include "kernels/codec/level_code.h"

namespace trainyard::kernels::internal {

void LevelEncodeCpu(const LevelEncodeArgs& args, Stream& stream);
void LevelDecodeCpu(const LevelDecodeArgs& args, Stream& stream);
void LevelEncodeCuda(const LevelEncodeArgs& args, Stream& stream);
void LevelDecodeCuda(const LevelDecodeArgs& args, Stream& stream);

}  // namespace trainyard::kernels::internal
