#include "kernels/core/block_reduce.h"
#include "kernels/influence/gradient_vector_internal.h"

namespace trainyard::kernels::internal {
namespace {

__global__ void GatherElementsKernel(GatherElementsArgs args) {
  for (int64_t i = GlobalThread(); i < args.count; i += GlobalThreads()) {
    args.y[i] = args.x[ElementAt(args.elements, i)];
  }
}

__global__ void MoveElementsKernel(MoveElementsArgs args) {
  for (int64_t i = GlobalThread(); i < args.count; i += GlobalThreads()) {
    args.x[ElementAt(args.elements, i)] = MovedElement(args.base[i], args.direction[i], args.step);
  }
}

__global__ void ScaleGradientKernel(ScaleGradientArgs args) {
  for (int64_t i = GlobalThread(); i < args.count; i += GlobalThreads()) {
    args.y[i] = ScaledGradient(args, ElementAt(args.elements, i), args.y[i]);
  }
}

constexpr int kThreads = 256;

// One block.
__global__ void __launch_bounds__(kThreads)
    StoreUsableNormKernel(const double* partials, int64_t count, const double* gate, double* norm) {
  double squares = 0;
  for (int64_t i = threadIdx.x; i < count; i += kThreads) squares += partials[i];
  squares = BlockReduce<kThreads>(squares, Sum());
  if (threadIdx.x == 0) *norm = UsableNorm(squares, gate);
}

__global__ void DivideByNormKernel(float* x, int64_t count, const double* norm, bool keeps_length) {
  const double length = *norm;
  for (int64_t i = GlobalThread(); i < count; i += GlobalThreads()) x[i] = DividedByNorm(x[i], length, keeps_length);
}

}  // namespace

void GatherElementsCuda(const GatherElementsArgs& args, Stream& stream) {
  if (args.count == 0) return;
  Launch(stream, ElementwiseGrid(args.count), GatherElementsKernel, args);
}

void MoveElementsCuda(const MoveElementsArgs& args, Stream& stream) {
  if (args.count == 0) return;
  Launch(stream, ElementwiseGrid(args.count), MoveElementsKernel, args);
}

void ScaleGradientCuda(const ScaleGradientArgs& args, Stream& stream) {
  if (args.count == 0) return;
  Launch(stream, ElementwiseGrid(args.count), ScaleGradientKernel, args);
}

void StoreUsableNormCuda(const VectorNormArgs& args, int64_t partials, Stream& stream) {
  Launch(stream, RowGrid(1, kThreads), StoreUsableNormKernel, args.workspace, partials, args.gate, args.norm);
}

void DivideByNormCuda(const DivideByNormArgs& args, Stream& stream) {
  if (args.count == 0) return;
  Launch(stream, ElementwiseGrid(args.count), DivideByNormKernel, args.x, args.count, args.norm, args.keeps_length);
}

}  // namespace trainyard::kernels::internal
