#include "kernels/optim/quads.h"
#include "kernels/optim/sgd_internal.h"

namespace trainyard::kernels::internal {
namespace {

struct SgdTask {
  QuadArray source, param, grad, velocity;  // source: the master, or the parameter itself
  const float* gradient_factor;
  float grad_scale;
  int64_t size;
  bool is_aligned, has_master;
  QuadRounding round_param, round_velocity;
};

__global__ void SgdKernel(SgdTask task, SgdConstants k) {
  const float grad_scale = task.grad_scale * FactorOf(task.gradient_factor);
  const bool has_velocity = task.velocity.data != nullptr;
  ForQuads(task.size, task.is_aligned, [&](const QuadPlace& place) {
    const RawQuad raw_grad = LoadQuad(task.grad, place), raw_param = LoadQuad(task.source, place);
    const RawQuad raw_velocity = has_velocity ? LoadQuad(task.velocity, place) : RawQuad{};
    const Quad grad = DecodeQuad(task.grad.dtype, raw_grad);
    Quad param = DecodeQuad(task.source.dtype, raw_param);
    if (has_velocity) {
      Quad velocity = DecodeQuad(task.velocity.dtype, raw_velocity);
      for (int j = 0; j < 4; ++j) {
        param.x[j] = SgdElement(k, grad.x[j] * grad_scale, param.x[j], velocity.x[j]);
      }
      StoreQuad(velocity, task.round_velocity, place, task.velocity);
    } else {
      for (int j = 0; j < 4; ++j) param.x[j] = PlainSgdElement(k, grad.x[j] * grad_scale, param.x[j]);
    }
    if (task.has_master) StoreFloats(param, place, static_cast<float*>(task.source.data));
    StoreQuad(param, task.round_param, place, task.param);
  });
}

}  // namespace

void SgdCuda(const SgdArgs& args, Stream& stream) {
  if (args.param.size() == 0) return;
  const auto rounding = [&](uint16_t purpose) {
    return QuadRounding(args.rounding, args.random, purpose, args.first_element);
  };
  const bool has_master = static_cast<bool>(args.master);
  const SgdTask task = {
      .source = has_master ? args.master : args.param,
      .param = args.param,
      .grad = args.grad,
      .velocity = args.velocity,
      .gradient_factor = FactorPointer(args.gradient_factor),
      .grad_scale = args.grad_scale,
      .size = args.param.size(),
      .is_aligned = HasAlignedQuads({args.master, args.param, args.grad, args.velocity}),
      .has_master = has_master,
      .round_param = has_master ? QuadRounding() : rounding(kRandomRoundWeight),
      .round_velocity = rounding(kRandomRoundFirstMoment),
  };
  Launch(stream, ElementwiseGrid(task.size, 4), SgdKernel, task, SgdConstantsOf(args));
}

}  // namespace trainyard::kernels::internal
