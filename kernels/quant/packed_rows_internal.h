#pragma once

#include "kernels/quant/packed_rows.h"

namespace trainyard::kernels::internal {

void PackRowsCpu(const PackRowsArgs& args, Stream& stream);
void UnpackRowsCpu(const UnpackRowsArgs& args, Stream& stream);
void MaskRowsCpu(const MaskRowsArgs& args, Stream& stream);
void PackRowsCuda(const PackRowsArgs& args, Stream& stream);
void UnpackRowsCuda(const UnpackRowsArgs& args, Stream& stream);
void MaskRowsCuda(const MaskRowsArgs& args, Stream& stream);

}  // namespace trainyard::kernels::internal
