#pragma once

#include "kernels/pointwise/elementwise.h"

namespace trainyard::kernels::internal {

void AddCpu(const AddArgs& args, Stream& stream);
void ScaleCpu(const ScaleArgs& args, Stream& stream);
void AccumulateCpu(const AccumulateArgs& args, Stream& stream);
void FillCpu(const FillArgs& args, Stream& stream);
void ConvertCpu(const ConvertArgs& args, Stream& stream);
void BiasGradientCpu(const BiasGradientArgs& args, Stream& stream);
void AddCuda(const AddArgs& args, Stream& stream);
void ScaleCuda(const ScaleArgs& args, Stream& stream);
void AccumulateCuda(const AccumulateArgs& args, Stream& stream);
void FillCuda(const FillArgs& args, Stream& stream);
void ConvertCuda(const ConvertArgs& args, Stream& stream);
void BiasGradientCuda(const BiasGradientArgs& args, Stream& stream);

}  // namespace trainyard::kernels::internal
