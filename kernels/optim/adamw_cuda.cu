#include "kernels/optim/adamw_internal.h"
#include "kernels/optim/scaled_quads.h"

namespace trainyard::kernels::internal {
namespace {

static_assert(kMomentGroup == kWarpElements);

struct AdamWTask {
  QuadArray source, param, grad, m, v;  // source: the master, or the parameter itself
  float* m_scales;
  const float* gradient_factor;
  float grad_scale;
  int64_t size;
  bool is_aligned, has_master;
  QuadRounding round_param, round_m, round_v;
};

__global__ void AdamWKernel(AdamWTask task, AdamWConstants<float> k) {
  const float grad_scale = task.grad_scale * FactorOf(task.gradient_factor);
  ForQuads(task.size, task.is_aligned, [&](const QuadPlace& place) {
    const RawQuad raw_grad = LoadQuad(task.grad, place), raw_param = LoadQuad(task.source, place);
    const RawQuad raw_m = LoadQuad(task.m, place), raw_v = LoadQuad(task.v, place);
    const Quad grad = DecodeQuad(task.grad.dtype, raw_grad);
    Quad param = DecodeQuad(task.source.dtype, raw_param);
    Quad m = task.m_scales == nullptr ? DecodeQuad(task.m.dtype, raw_m) : DecodeScaledQuad(raw_m, place, task.m_scales);
    Quad v = DecodeQuad(task.v.dtype, raw_v);
    for (int j = 0; j < 4; ++j) {
      float divisor;
      param.x[j] = AdamWElement(k, grad.x[j] * grad_scale, param.x[j], m.x[j], v.x[j], divisor);
    }
    if (task.has_master) StoreFloats(param, place, static_cast<float*>(task.source.data));
    StoreQuad(param, task.round_param, place, task.param);
    StoreQuad(v, task.round_v, place, task.v);
    if (task.m_scales == nullptr) {
      StoreQuad(m, task.round_m, place, task.m);
    } else {
      StoreScaledQuad(m, task.round_m, place, task.m.data, task.m_scales);
    }
  });
}

}  // namespace

void AdamWCuda(const AdamWArgs& args, Stream& stream) {
  if (args.param.size() == 0) return;
  const auto rounding = [&](uint16_t purpose) {
    return QuadRounding(args.rounding, args.random, purpose, args.first_element);
  };
  const bool has_master = static_cast<bool>(args.master);
  const AdamWTask task = {
      .source = has_master ? args.master : args.param,
      .param = args.param,
      .grad = args.grad,
      .m = args.m,
      .v = args.v,
      .m_scales = args.m_scales ? args.m_scales.as<float>() : nullptr,
      .gradient_factor = FactorPointer(args.gradient_factor),
      .grad_scale = args.grad_scale,
      .size = args.param.size(),
      .is_aligned = HasAlignedQuads({args.master, args.param, args.grad, args.m, args.v}),
      .has_master = has_master,
      .round_param = has_master ? QuadRounding() : rounding(kRandomRoundWeight),
      .round_m = rounding(kRandomRoundFirstMoment),
      .round_v = rounding(kRandomRoundSecondMoment),
  };
  Launch(stream, ElementwiseGrid(task.size, 4), AdamWKernel, task, AdamWConstantsOf(args));
}

}  // namespace trainyard::kernels::internal
