#include "kernels/influence/gradient_vector_internal.h"

namespace trainyard::kernels::internal {
namespace {

constexpr int64_t kGrain = 1 << 14;

template <typename Body>
void ForEach(int64_t count, Stream& stream, const Body& body) {
  stream.pool().ParallelFor(count, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) body(i);
  });
}

}  // namespace

void GatherElementsCpu(const GatherElementsArgs& args, Stream& stream) {
  ForEach(args.count, stream, [&](int64_t i) { args.y[i] = args.x[ElementAt(args.elements, i)]; });
}

void MoveElementsCpu(const MoveElementsArgs& args, Stream& stream) {
  ForEach(args.count, stream, [&](int64_t i) {
    args.x[ElementAt(args.elements, i)] = MovedElement(args.base[i], args.direction[i], args.step);
  });
}

void ScaleGradientCpu(const ScaleGradientArgs& args, Stream& stream) {
  ForEach(args.count, stream,
          [&](int64_t i) { args.y[i] = ScaledGradient(args, ElementAt(args.elements, i), args.y[i]); });
}

void StoreUsableNormCpu(const VectorNormArgs& args, int64_t partials, Stream& /*stream*/) {
  double squares = 0;
  for (int64_t i = 0; i < partials; ++i) squares += args.workspace[i];
  *args.norm = UsableNorm(squares, args.gate);
}

void DivideByNormCpu(const DivideByNormArgs& args, Stream& stream) {
  const double norm = *args.norm;
  ForEach(args.count, stream, [&](int64_t i) { args.x[i] = DividedByNorm(args.x[i], norm, args.keeps_length); });
}

}  // namespace trainyard::kernels::internal
