#include "kernels/optim/eco_internal.h"
#include "kernels/optim/quads.h"
#include "kernels/quant/coded_matrix_formula.h"
#include "kernels/quant/coded_matrix_internal.h"

namespace trainyard::kernels::internal {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kRound = kThreads * 4;  // elements that a block of threads has at a time
constexpr int kFinishThreads = 1024;

// Where the new scales come from.
enum class Spans {
  kNone,   // f32: there are no codes
  kShort,  // at most a round: made of the round's elements
  kLong,   // made in a pass before the one that encodes
  kOnly,   // one for the matrix: made by kernels before this one
};

// A matrix and its state, as kernels see them.
struct EcoTask {
  void *codes, *scales;
  bool is_int4, is_f16, rounds_weight;
  int64_t span, size, piece, pieces;
  QuadArray grad, m, v;
  float *error, *statistics, *workspace;
  const float* gradient_factor;
  float grad_scale;
  EcoForm form;
  bool is_aligned;
  QuadRounding round_codes, round_m, round_v;
  EcoConstants<float> k;

  __device__ float Scale(int64_t index) const {
    return is_f16 ? WidenToFloat(static_cast<const Float16*>(scales)[index]) : static_cast<const float*>(scales)[index];
  }
  __device__ void StoreScale(float scale, int64_t index) const {
    if (is_f16) {
      static_cast<Float16*>(scales)[index] = RoundNearest<Float16>(scale);  // exact: it was made for this type
    } else {
      static_cast<float*>(scales)[index] = scale;
    }
  }
  __device__ float GradScale() const { return grad_scale * FactorOf(gradient_factor); }
  __device__ float Value(uint8_t code, float scale) const {
    const float value = is_int4 ? Int4Value(code, scale) : E4M3Value(code, scale);
    return rounds_weight ? ToFloat(FromFloat<BFloat16>(value)) : value;
  }
  // A byte a code.
  __device__ RawQuad LoadCodes(const QuadPlace& place) const {
    if (!is_int4) return LoadBytes(codes, place);
    RawQuad raw = {};
    for (int pair = 0; pair < 2; ++pair) {
      if (2 * pair >= place.count) continue;
      const uint8_t packed = static_cast<const uint8_t*>(codes)[place.at / 2 + pair];
      raw.word[0] |= (uint32_t{EvenInt4(packed)} | uint32_t{OddInt4(packed)} << 8) << (16 * pair);
    }
    return raw;
  }
  __device__ void StoreCodes(const RawQuad& raw, const QuadPlace& place) const {
    if (!is_int4) return StoreBytes(raw, place, codes);
    for (int pair = 0; pair < 2; ++pair) {
      if (2 * pair >= place.count) continue;
      static_cast<uint8_t*>(codes)[place.at / 2 + pair] =
          PackInt4Pair(ByteOf(raw, 2 * pair), ByteOf(raw, 2 * pair + 1));
    }
  }
};

// The scales of a quad's elements.
struct QuadScales {
  Scale of[4];
  __device__ static QuadScales All(const Scale& scale) { return {{scale, scale, scale, scale}}; }
};

// A quad on its way: w~ and the moments before anything is stored.
struct EcoQuad {
  RawQuad old_codes;
  Quad next, m, v, divisor;
};

template <Spans kSpans>
__device__ EcoQuad Advance(const EcoTask& task, const QuadPlace& place, const QuadScales& old, float grad_scale) {
  const RawQuad raw_grad = LoadQuad(task.grad, place), raw_m = LoadQuad(task.m, place);
  const RawQuad raw_v = task.form == EcoForm::kAdamW ? LoadQuad(task.v, place) : RawQuad{};
  EcoQuad quad = {};
  Quad weight = {};
  if constexpr (kSpans == Spans::kNone) {
    weight = LoadFloats(static_cast<const float*>(task.codes), place);
  } else {
    quad.old_codes = task.LoadCodes(place);
    for (int j = 0; j < 4; ++j) weight.x[j] = task.Value(ByteOf(quad.old_codes, j), old.of[j].value);
  }
  const Quad grad = DecodeQuad(task.grad.dtype, raw_grad);
  quad.m = DecodeQuad(task.m.dtype, raw_m);
  if (task.form == EcoForm::kAdamW) {
    quad.v = DecodeQuad(task.v.dtype, raw_v);
    for (int j = 0; j < 4; ++j) {
      quad.next.x[j] =
          AdamWElement(task.k.adamw, grad.x[j] * grad_scale, weight.x[j], quad.m.x[j], quad.v.x[j], quad.divisor.x[j]);
    }
  } else {
    for (int j = 0; j < 4; ++j) {
      quad.next.x[j] = EcoSgdmElement(task.k, grad.x[j] * grad_scale, weight.x[j], quad.m.x[j]);
    }
  }
  return quad;
}

struct EcoSums {
  float of[kEcoStatistics] = {};
};

// Rounds w~, hands the error on and stores all.
template <Spans kSpans>
__device__ void Finish(const EcoTask& task, const QuadPlace& place, const QuadScales& scales, const EcoQuad& quad,
                       EcoSums& sums) {
  Quad weight = quad.next;
  if constexpr (kSpans == Spans::kNone) {
    StoreFloats(weight, place, static_cast<float*>(task.codes));
  } else {
    RawQuad codes = {}, words = {};
    if (task.round_codes.is_stochastic()) words = task.round_codes.Words(place);
    for (int j = 0; j < 4; ++j) {
      const float x = quad.next.x[j], inverse = scales.of[j].inverse;
      uint8_t code;
      if (task.round_codes.is_stochastic()) {
        code = task.is_int4 ? Int4Code(x, inverse, words.word[j])
                            : E4M3Code(x, inverse, words.word[j], Overflow::kSaturate);
      } else {
        code = task.is_int4 ? Int4Code(x, inverse) : E4M3Code(x, inverse);
      }
      codes.word[0] |= uint32_t{code} << (j * 8);
      weight.x[j] = task.Value(code, scales.of[j].value);
      if (j >= place.count) continue;
      sums.of[kEcoChanged] += code != ByteOf(quad.old_codes, j) ? 1.0f : 0.0f;
      const float scaled = x * inverse;
      sums.of[kEcoClipped] += fabsf(scaled) > LargestCode(task.is_int4) * 1.000001f ? 1.0f : 0.0f;
    }
    task.StoreCodes(codes, place);
  }
  Quad last = {}, stored = {};
  if (task.form == EcoForm::kSgdmExact) last = LoadFloats(task.error, place);
  for (int j = 0; j < 4; ++j) {
    const float error = quad.next.x[j] - weight.x[j];
    stored.x[j] = task.form == EcoForm::kAdamW ? EcoInjectAdamW(task.k, quad.m.x[j], quad.divisor.x[j], error)
                                               : EcoInjectSgdm(task.k, quad.m.x[j], last.x[j], error);
    // What was not injected must not be paid back.
    last.x[j] = error * (task.k.injection == 0 ? 0.0f : 1.0f);
    if (j >= place.count) continue;
    const float injected = stored.x[j] - quad.m.x[j];
    sums.of[kEcoInjectionSquares] += injected * injected;
    sums.of[kEcoMomentumSquares] += quad.m.x[j] * quad.m.x[j];
  }
  if (task.form == EcoForm::kSgdmExact) StoreFloats(last, place, task.error);
  if (task.form == EcoForm::kAdamW) StoreQuad(quad.v, task.round_v, place, task.v);
  StoreQuad(stored, task.round_m, place, task.m);
}

// The largest |w~| of elements [begin, end), which one old scale covers; every thread gets its bits.
__device__ uint32_t LargestOf(const EcoTask& task, int64_t begin, int64_t end, float old_scale, float grad_scale) {
  uint32_t largest = 0;
  const QuadScales old = QuadScales::All({old_scale, 0});
  for (int64_t at = begin + int64_t{threadIdx.x} * 4; at < end; at += kRound) {
    const QuadPlace place(at, end, task.is_aligned);
    const uint32_t here = LargestBits(Advance<Spans::kLong>(task, place, old, grad_scale).next, place.count);
    largest = here > largest ? here : largest;
  }
  return BlockReduce<kThreads>(largest, Max());
}

// Elements [begin, end) whose old and new scale is one.
template <Spans kSpans>
__device__ void Run(const EcoTask& task, int64_t begin, int64_t end, float old_scale, const Scale& scale,
                    float grad_scale, EcoSums& sums) {
  const QuadScales old = QuadScales::All({old_scale, 0}), scales = QuadScales::All(scale);
  for (int64_t at = begin + int64_t{threadIdx.x} * 4; at < end; at += kRound) {
    const QuadPlace place(at, end, task.is_aligned);
    Finish<kSpans>(task, place, scales, Advance<kSpans>(task, place, old, grad_scale), sums);
  }
}

// Elements [begin, end), at most a round, of whole short spans.
__device__ void RunShort(const EcoTask& task, int64_t begin, int64_t end, float grad_scale, EcoSums& sums) {
  __shared__ uint32_t largest[kRound];
  __shared__ float values[kRound], inverses[kRound];
  const auto span = static_cast<uint32_t>(task.span);
  const auto spans = static_cast<uint32_t>(end - begin) / span;
  const int64_t first_span = begin / task.span;
  for (uint32_t s = threadIdx.x; s < spans; s += kThreads) largest[s] = 0;
  const QuadPlace place(begin + int64_t{threadIdx.x} * 4, end, task.is_aligned);
  uint32_t of[4] = {};  // each element's span
  QuadScales scales = {};
  for (int j = 0; j < 4; ++j) {
    if (j >= place.count) continue;
    of[j] = (threadIdx.x * 4 + static_cast<uint32_t>(j)) / span;
    scales.of[j].value = task.Scale(first_span + of[j]);
  }
  const EcoQuad quad = Advance<Spans::kShort>(task, place, scales, grad_scale);
  __syncthreads();
  if (span % kWarpElements == 0) {  // a warp's elements have one scale
    const uint32_t here = WarpReduce(LargestBits(quad.next, place.count), Max());
    if (threadIdx.x % 32 == 0 && place.count > 0) atomicMax(&largest[of[0]], here);
  } else {
    for (int j = 0; j < 4; ++j) {
      if (j < place.count) atomicMax(&largest[of[j]], __float_as_uint(quad.next.x[j]) & 0x7FFFFFFFu);
    }
  }
  __syncthreads();
  for (uint32_t s = threadIdx.x; s < spans; s += kThreads) {
    const Scale scale = MakeScale(__uint_as_float(largest[s]), task.is_int4, task.is_f16);
    values[s] = scale.value;
    inverses[s] = scale.inverse;
    task.StoreScale(scale.value, first_span + s);
  }
  __syncthreads();
  for (int j = 0; j < 4; ++j) {
    if (j < place.count) scales.of[j] = {values[of[j]], inverses[of[j]]};
  }
  Finish<Spans::kShort>(task, place, scales, quad, sums);
  __syncthreads();  // the scales have been read
}

// A block of threads a piece.
template <Spans kSpans>
__global__ void EcoKernel(EcoTask task) {
  const float grad_scale = task.GradScale();
  for (int64_t piece = blockIdx.x; piece < task.pieces; piece += gridDim.x) {
    const int64_t begin = piece * task.piece;
    const int64_t end = begin + task.piece < task.size ? begin + task.piece : task.size;
    EcoSums sums;
    if constexpr (kSpans == Spans::kNone) {
      Run<kSpans>(task, begin, end, 0, Scale(), grad_scale, sums);
    } else if constexpr (kSpans == Spans::kShort) {
      const int64_t round = kRound / task.span * task.span;
      for (int64_t at = begin; at < end; at += round) {
        RunShort(task, at, at + round < end ? at + round : end, grad_scale, sums);
      }
    } else if constexpr (kSpans == Spans::kLong) {
      for (int64_t at = begin; at < end; at += task.span) {
        const float old_scale = task.Scale(at / task.span);
        const uint32_t largest = LargestOf(task, at, at + task.span, old_scale, grad_scale);
        const Scale scale = MakeScale(__uint_as_float(largest), task.is_int4, task.is_f16);
        if (threadIdx.x == 0) task.StoreScale(scale.value, at / task.span);
        Run<kSpans>(task, at, at + task.span, old_scale, scale, grad_scale, sums);
      }
    } else {
      Run<kSpans>(task, begin, end, task.workspace[0], ScaleOf(task.Scale(0)), grad_scale, sums);
    }
    if (task.statistics == nullptr) continue;
    for (int i = 0; i < kEcoStatistics; ++i) {
      const float sum = BlockReduce<kThreads>(sums.of[i], Sum());
      if (threadIdx.x == 0) task.statistics[piece * kEcoStatistics + i] = sum;
    }
  }
}

// Of a matrix with one scale. Workspace: the old scale, then a number for each piece.
__global__ void LargestOfPiecesKernel(EcoTask task) {
  const float grad_scale = task.GradScale(), old_scale = task.Scale(0);
  for (int64_t piece = blockIdx.x; piece < task.pieces; piece += gridDim.x) {
    const int64_t begin = piece * task.piece;
    const int64_t end = begin + task.piece < task.size ? begin + task.piece : task.size;
    const uint32_t largest = LargestOf(task, begin, end, old_scale, grad_scale);
    if (threadIdx.x == 0) task.workspace[1 + piece] = __uint_as_float(largest);
  }
}

__global__ void OnlyScaleKernel(EcoTask task) {
  uint32_t largest = 0;
  for (int64_t i = threadIdx.x; i < task.pieces; i += kFinishThreads) {
    largest = Max()(largest, __float_as_uint(task.workspace[1 + i]));
  }
  largest = BlockReduce<kFinishThreads>(largest, Max());
  if (threadIdx.x != 0) return;
  task.workspace[0] = task.Scale(0);
  task.StoreScale(MakeScale(__uint_as_float(largest), task.is_int4, task.is_f16).value, 0);
}

}  // namespace

void EcoCuda(const EcoArgs& args, Stream& stream) {
  const CodeTasks tasks = CutTasks(args.weights);
  const int64_t size = args.weights.size();
  if (size == 0) return;
  const DType format = args.weights.codes.dtype();
  const bool is_coded = format != DType::kF32;
  const auto rounding = [&](Rounding how, uint16_t purpose) {
    return QuadRounding(how, args.random, purpose, args.first_element);
  };
  const EcoTask task = {
      .codes = args.weights.codes.data(),
      .scales = args.weights.scales.data(),
      .is_int4 = format == DType::kU8,
      .is_f16 = is_coded && args.weights.scales.dtype() == DType::kF16,
      .rounds_weight = is_coded && args.weight_value == DType::kBF16,
      .span = tasks.span,
      .size = size,
      .piece = tasks.task,
      .pieces = tasks.count,
      .grad = args.grad,
      .m = args.m,
      .v = args.v,
      .error = args.form == EcoForm::kSgdmExact ? args.error.as<float>() : nullptr,
      .statistics = args.statistics ? args.statistics.as<float>() : nullptr,
      .workspace = static_cast<float*>(args.workspace.data()),
      .gradient_factor = FactorPointer(args.gradient_factor),
      .grad_scale = args.grad_scale,
      .form = args.form,
      .is_aligned = tasks.span % 4 == 0 && HasAlignedQuads({args.weights.codes, args.grad, args.m, args.v, args.error}),
      .round_codes = rounding(args.rounding, kRandomRoundWeight),
      .round_m = rounding(Rounding::kStochastic, kRandomRoundFirstMoment),
      .round_v = rounding(Rounding::kStochastic, kRandomRoundSecondMoment),
      .k = EcoConstantsOf(args),
  };
  const Grid grid = RowGrid(task.pieces, kThreads);
  if (!is_coded) return Launch(stream, grid, EcoKernel<Spans::kNone>, task);
  if (!tasks.is_long) return Launch(stream, grid, EcoKernel<Spans::kShort>, task);
  if (!tasks.has_one_span) return Launch(stream, grid, EcoKernel<Spans::kLong>, task);
  Launch(stream, grid, LargestOfPiecesKernel, task);
  Launch(stream, {.threads = kFinishThreads}, OnlyScaleKernel, task);
  Launch(stream, grid, EcoKernel<Spans::kOnly>, task);
}

}  // namespace trainyard::kernels::internal
