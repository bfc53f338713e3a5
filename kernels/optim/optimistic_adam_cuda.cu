#include "kernels/optim/optimistic_adam.h"
#include "kernels/optim/optimistic_adam_formula.h"
#include "kernels/optim/quads.h"

namespace trainyard::kernels::internal {
namespace {

// `base` may be the weight itself; `previous` null for the plain step.
__global__ void OptimisticAdamKernel(AdamConstants<float> k, float lr, const float* base, const float* gradient,
                                     int64_t size, bool is_aligned, float* weight, float* m, float* v,
                                     float* previous) {
  ForQuads(size, is_aligned, [&](const QuadPlace& place) {
    Quad point = LoadFloats(base, place);
    const Quad g = LoadFloats(gradient, place);
    Quad first = LoadFloats(m, place), second = LoadFloats(v, place);
    if (previous == nullptr) {
      for (int j = 0; j < 4; ++j) {
        point.x[j] = PlainStep(point.x[j], lr, AdamDirection(k, g.x[j], first.x[j], second.x[j]));
      }
    } else {
      Quad last = LoadFloats(previous, place);
      for (int j = 0; j < 4; ++j) {
        const float direction = AdamDirection(k, g.x[j], first.x[j], second.x[j]);
        point.x[j] = OptimisticStep(point.x[j], lr, direction, last.x[j]);
      }
      StoreFloats(last, place, previous);
    }
    StoreFloats(point, place, weight);
    StoreFloats(first, place, m);
    StoreFloats(second, place, v);
  });
}

}  // namespace

void OptimisticAdamCuda(const OptimisticAdamArgs& args, Stream& stream) {
  if (args.weight.size() == 0) return;
  const auto constants = AdamConstants<float>::Of(static_cast<double>(args.beta1), static_cast<double>(args.beta2),
                                                  static_cast<double>(args.eps), args.step);
  const bool is_aligned = HasAlignedQuads({args.weight, args.base, args.gradient, args.m, args.v, args.previous});
  Launch(stream, ElementwiseGrid(args.weight.size(), 4), OptimisticAdamKernel, constants, args.lr,
         args.base ? args.base.as<float>() : args.weight.as<float>(), args.gradient.as<float>(), args.weight.size(),
         is_aligned, args.weight.as<float>(), args.m.as<float>(), args.v.as<float>(),
         args.previous ? args.previous.as<float>() : nullptr);
}

}  // namespace trainyard::kernels::internal
