#pragma once

#include "kernels/quant/quest.h"

namespace trainyard::kernels::internal {

void QuestQuantizeCpu(const QuestQuantizeArgs& args, Stream& stream);
void QuestDequantizeCpu(const QuestDequantizeArgs& args, Stream& stream);

}  // namespace trainyard::kernels::internal
