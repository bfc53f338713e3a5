#include "kernels/core/block_reduce.h"
#include "kernels/quant/abs_max.h"
#include "kernels/quant/chunk.h"
#include "kernels/quant/coded_matrix_internal.h"

namespace trainyard::kernels::internal {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kLongSpan = 1024;  // a block's work; shorter ones are a warp's

// A matrix as kernels see it.
struct Codes {
  void* codes;
  void* scales;
  bool is_int4, is_f16;
  int64_t span, size;  // elements of one scale, and of all

  explicit Codes(const CodedMatrix& matrix)
      : codes(matrix.codes.data()),
        scales(matrix.scales.data()),
        is_int4(matrix.codes.dtype() == DType::kU8),
        is_f16(matrix.scales.dtype() == DType::kF16),
        span(matrix.span()),
        size(matrix.size()) {}

  __device__ float Load(int64_t index) const {
    return is_f16 ? WidenToFloat(static_cast<const Float16*>(scales)[index]) : static_cast<const float*>(scales)[index];
  }
  __device__ void Store(float scale, int64_t index) const {
    if (is_f16) {
      static_cast<Float16*>(scales)[index] = RoundNearest<Float16>(scale);  // exact
    } else {
      static_cast<float*>(scales)[index] = scale;
    }
  }
};

struct Source {
  Floats x;
  bool is_stochastic;
  PhiloxKey random;
};

// Elements first .. first + kStep - 1, of which `count` are there. INT4: both are even.
template <int kStep>
__device__ inline void EncodeChunk(const Source& source, const Codes& to, float inverse, int64_t first, int64_t count) {
  float x[kStep];
  uint8_t bytes[kStep];
  Load<kStep>(source.x, first, count, x);
  if (source.is_stochastic) {
    uint32_t words[kStep];
    if constexpr (kStep == 4) {
      FourWords(source.random, first, words);
    } else {
      TY_UNROLL
      for (int i = 0; i < kStep; ++i) words[i] = RandomWord(source.random, static_cast<uint64_t>(first + i));
    }
    TY_UNROLL
    for (int i = 0; i < kStep; ++i) {
      bytes[i] =
          to.is_int4 ? Int4Code(x[i], inverse, words[i]) : E4M3Code(x[i], inverse, words[i], Overflow::kSaturate);
    }
  } else {
    TY_UNROLL
    for (int i = 0; i < kStep; ++i) bytes[i] = to.is_int4 ? Int4Code(x[i], inverse) : E4M3Code(x[i], inverse);
  }
  auto* const codes = static_cast<uint8_t*>(to.codes);
  if (!to.is_int4) return StoreChunk<kStep>(bytes, count, codes + first);
  uint8_t packed[kStep / 2];
  TY_UNROLL
  for (int i = 0; i < kStep / 2; ++i) packed[i] = PackInt4Pair(bytes[2 * i], bytes[2 * i + 1]);
  StoreChunk<kStep / 2>(packed, count / 2, codes + first / 2);
}

// kSpanThreads, a warp or the block, for each span: its scale, then its codes.
template <int kSpanThreads, int kStep>
__global__ void SpansKernel(Source source, Codes to) {
  constexpr int kSpans = kThreads / kSpanThreads;
  const int thread = static_cast<int>(threadIdx.x) % kSpanThreads;
  const int64_t spans = to.size / to.span;
  for (int64_t top = int64_t{blockIdx.x} * kSpans; top < spans; top += int64_t{gridDim.x} * kSpans) {
    const int64_t s = top + threadIdx.x / kSpanThreads;
    const int64_t length = s < spans ? to.span : 0;
    const int64_t begin = s * to.span;
    uint32_t largest = 0;
    for (int64_t c = thread * kStep; c < length; c += kSpanThreads * kStep) {
      float x[kStep];
      Load<kStep>(source.x, begin + c, length - c, x);
      TY_UNROLL
      for (int i = 0; i < kStep; ++i) largest = Max()(largest, __float_as_uint(x[i]) & 0x7FFFFFFF);
    }
    if constexpr (kSpanThreads == 32) {
      largest = WarpReduce(largest, Max());
    } else {
      largest = BlockReduce<kThreads>(largest, Max());
    }
    const Scale scale = MakeScale(__uint_as_float(largest), to.is_int4, to.is_f16);
    if (thread == 0 && s < spans) to.Store(scale.value, s);
    for (int64_t c = thread * kStep; c < length; c += kSpanThreads * kStep) {
      EncodeChunk<kStep>(source, to, scale.inverse, begin + c, length - c);
    }
  }
}

__global__ void OnlyScaleKernel(const float* amax, Codes to) {
  to.Store(MakeScale(*amax, to.is_int4, to.is_f16).value, 0);
}

// All elements with the one scale that is there already.
template <int kStep>
__global__ void OneSpanKernel(Source source, Codes to) {
  const float inverse = ScaleOf(to.Load(0)).inverse;
  for (int64_t first = GlobalThread() * kStep; first < to.size; first += GlobalThreads() * kStep) {
    EncodeChunk<kStep>(source, to, inverse, first, to.size - first);
  }
}

// For matrices that are no codes.
__global__ void ConvertKernel(Floats x, Floats y, int64_t size) {
  for (int64_t first = GlobalThread() * 4; first < size; first += GlobalThreads() * 4) {
    float values[4];
    Load<4>(x, first, size - first, values);
    Store<4>(values, y, first, size - first);
  }
}

// 32 bits are divided several times as fast as 64.
__device__ inline int64_t Quotient(int64_t a, int64_t b) {
  if ((a | b) >> 32 == 0) return static_cast<uint32_t>(a) / static_cast<uint32_t>(b);
  return a / b;
}

__global__ void DecodeKernel(Codes from, Floats y) {
  constexpr int kStep = 4;
  const bool is_apart = from.span % kStep == 0;  // four elements have one scale
  const auto* const codes = static_cast<const uint8_t*>(from.codes);
  for (int64_t first = GlobalThread() * kStep; first < from.size; first += GlobalThreads() * kStep) {
    const int64_t count = from.size - first;
    uint8_t bytes[kStep];
    float values[kStep];
    if (from.is_int4) {
      uint8_t packed[kStep / 2];
      LoadChunk<kStep / 2>(codes + first / 2, (count + 1) / 2, packed);
      TY_UNROLL
      for (int i = 0; i < kStep / 2; ++i) {
        bytes[2 * i] = EvenInt4(packed[i]);
        bytes[2 * i + 1] = OddInt4(packed[i]);
      }
    } else {
      LoadChunk<kStep>(codes + first, count, bytes);
    }
    const float shared = from.Load(Quotient(first, from.span));
    TY_UNROLL
    for (int i = 0; i < kStep; ++i) {
      const float scale = is_apart || i >= count ? shared : from.Load(Quotient(first + i, from.span));
      values[i] = from.is_int4 ? Int4Value(bytes[i], scale) : E4M3Value(bytes[i], scale);
    }
    Store<kStep>(values, y, first, count);
  }
}

template <int kStep>
void EncodeSpans(const Source& source, const CodedMatrix& matrix, Stream& stream) {
  const Codes to(matrix);
  const int64_t spans = matrix.scales.size();
  if (to.span <= kLongSpan) {
    Launch(stream, RowGrid((spans + kThreads / 32 - 1) / (kThreads / 32), kThreads), SpansKernel<32, kStep>, source,
           to);
  } else {
    Launch(stream, RowGrid(spans, kThreads), SpansKernel<kThreads, kStep>, source, to);
  }
}

// A word of the codes' own memory, which is written last, for what the blocks of a span that is the whole matrix agree
// upon.
TensorView WordOfCodes(const CodedMatrix& matrix) {
  const uintptr_t start = reinterpret_cast<uintptr_t>(matrix.codes.data());
  return TensorView(reinterpret_cast<void*>((start + 3) / 4 * 4), DType::kF32, {1});
}

template <int kStep>
void EncodeOneSpan(const Source& source, const TensorView& x, const CodedMatrix& matrix, Stream& stream) {
  const TensorView amax = WordOfCodes(matrix);
  AbsMax({.x = x, .y = amax}, stream);
  Launch(stream, {.threads = 1}, OnlyScaleKernel, amax.as<float>(), Codes(matrix));
  Launch(stream, ElementwiseGrid(x.size(), kStep), OneSpanKernel<kStep>, source, Codes(matrix));
}

}  // namespace

void EncodeMatrixCuda(const EncodeMatrixArgs& args, Stream& stream) {
  const CodedMatrix& matrix = args.matrix;
  const int64_t size = args.x.size();
  if (size == 0) return;
  if (matrix.codes.dtype() == DType::kF32) {
    Launch(stream, ElementwiseGrid(size, 4), ConvertKernel, Floats(args.x), Floats(matrix.codes), size);
    return;
  }
  const Source source = {args.x, args.rounding == Rounding::kStochastic, args.random};
  const bool has_quads = matrix.span() % 4 == 0;
  if (matrix.scales.size() == 1 && matrix.span() > kLongSpan) {
    (has_quads ? EncodeOneSpan<4> : EncodeOneSpan<2>)(source, args.x, matrix, stream);
  } else {
    (has_quads ? EncodeSpans<4> : EncodeSpans<2>)(source, matrix, stream);
  }
}

void DecodeMatrixCuda(const DecodeMatrixArgs& args, Stream& stream) {
  const CodedMatrix& matrix = args.matrix;
  const int64_t size = args.y.size();
  if (size == 0) return;
  if (matrix.codes.dtype() == DType::kF32) {
    Launch(stream, ElementwiseGrid(size, 4), ConvertKernel, Floats(matrix.codes), Floats(args.y), size);
  } else {
    Launch(stream, ElementwiseGrid(size, 4), DecodeKernel, Codes(matrix), Floats(args.y));
  }
}

}  // namespace trainyard::kernels::internal
