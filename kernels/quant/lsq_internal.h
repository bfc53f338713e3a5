#pragma once

#include "kernels/quant/lsq.h"

namespace trainyard::kernels::internal {

void LsqFirstStepCpu(const LsqFirstStepArgs& args, Stream& stream);
void LsqRowStepsCpu(const LsqRowStepsArgs& args, Stream& stream);
void LsqStepGradientCpu(const LsqStepGradientArgs& args, Stream& stream);
void LsqFirstStepCuda(const LsqFirstStepArgs& args, Stream& stream);
void LsqRowStepsCuda(const LsqRowStepsArgs& args, Stream& stream);
void LsqStepGradientCuda(const LsqStepGradientArgs& args, Stream& stream);

}  // namespace trainyard::kernels::internal
