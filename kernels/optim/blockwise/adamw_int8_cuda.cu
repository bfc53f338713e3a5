#include "kernels/optim/blockwise/adamw_int8_internal.h"
#include "kernels/optim/blockwise/moment8.h"
#include "kernels/optim/quads.h"

namespace trainyard::kernels::internal {
namespace {

static_assert(kMoment8Block == 2 * kWarpElements);

struct AdamWInt8Task {
  QuadArray source, param;  // source: the master, or the parameter itself
  const float* grad;
  uint8_t *m, *v;
  float *m_scale, *v_scale;
  const float* gradient_factor;
  int64_t size;
  bool is_aligned, has_master;
};

__device__ float LargestOf(const Quad& quad, int count, float largest) {
  TY_UNROLL
  for (int j = 0; j < 4; ++j) {
    const float magnitude = quad.x[j] < 0.0f ? -quad.x[j] : quad.x[j];
    if (j < count && magnitude > largest) largest = magnitude;
  }
  return largest;
}

// A block of moments a warp, as two quads a lane.
__global__ void AdamWInt8Kernel(AdamWInt8Task task, AdamWConstants<float> k) {
  const float factor = FactorOf(task.gradient_factor);
  const int lane = static_cast<int>(threadIdx.x % 32);
  for (int64_t block = GlobalThread() / 32; block * kMoment8Block < task.size; block += GlobalThreads() / 32) {
    const float old_m_scale = task.m_scale[block], old_v_scale = task.v_scale[block];
    const int64_t begin = block * kMoment8Block + lane * 4;
    const QuadPlace places[2] = {{begin, task.size, task.is_aligned},
                                 {begin + kWarpElements, task.size, task.is_aligned}};
    Quad m[2], v[2];
    float m_scale = 0, v_scale = 0;
    TY_UNROLL
    for (int half = 0; half < 2; ++half) {
      const QuadPlace& place = places[half];
      const Quad grad = LoadFloats(task.grad, place);
      Quad param = DecodeQuad(task.source.dtype, LoadQuad(task.source, place));
      const RawQuad m_codes = LoadBytes(task.m, place), v_codes = LoadBytes(task.v, place);
      for (int j = 0; j < 4; ++j) {
        m[half].x[j] = FirstMomentOf(ByteOf(m_codes, j), old_m_scale);
        v[half].x[j] = SecondMomentOf(ByteOf(v_codes, j), old_v_scale);
        float divisor;
        param.x[j] = AdamWElement(k, grad.x[j] * factor, param.x[j], m[half].x[j], v[half].x[j], divisor);
      }
      if (task.has_master) StoreFloats(param, place, static_cast<float*>(task.source.data));
      StoreQuad(param, QuadRounding(), place, task.param);
      m_scale = LargestOf(m[half], place.count, m_scale);
      v_scale = LargestOf(v[half], place.count, v_scale);
    }
    m_scale = WarpReduce(m_scale, Max());
    v_scale = WarpReduce(v_scale, Max());
    const float m_inverse = InverseOfMomentScale(m_scale), v_inverse = InverseOfMomentScale(v_scale);
    TY_UNROLL
    for (int half = 0; half < 2; ++half) {
      RawQuad m_codes = {}, v_codes = {};
      for (int j = 0; j < 4; ++j) {
        m_codes.word[0] |= uint32_t{FirstMomentCode(m[half].x[j], m_inverse)} << (j * 8);
        v_codes.word[0] |= uint32_t{SecondMomentCode(v[half].x[j], v_inverse)} << (j * 8);
      }
      StoreBytes(m_codes, places[half], task.m);
      StoreBytes(v_codes, places[half], task.v);
    }
    if (lane == 0) {
      task.m_scale[block] = m_scale;
      task.v_scale[block] = v_scale;
    }
  }
}

}  // namespace

void AdamWInt8Cuda(const AdamWInt8Args& args, Stream& stream) {
  if (args.param.size() == 0) return;
  const bool has_master = static_cast<bool>(args.master);
  const AdamWInt8Task task = {
      .source = has_master ? args.master : args.param,
      .param = args.param,
      .grad = args.grad.as<float>(),
      .m = args.m.as<uint8_t>(),
      .v = args.v.as<uint8_t>(),
      .m_scale = args.m_scale.as<float>(),
      .v_scale = args.v_scale.as<float>(),
      .gradient_factor = FactorPointer(args.gradient_factor),
      .size = args.param.size(),
      .is_aligned = HasAlignedQuads({args.master, args.param, args.grad, args.m, args.v}),
      .has_master = has_master,
  };
  Launch(stream, ElementwiseGrid(task.size, 8), AdamWInt8Kernel, task, AdamWInt8Constants(args));
}

}  // namespace trainyard::kernels::internal
