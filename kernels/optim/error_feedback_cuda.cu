#include "kernels/gemm/gemm.h"
#include "kernels/optim/error_feedback_internal.h"
#include "kernels/optim/quads.h"

namespace trainyard::kernels::internal {
namespace {

constexpr int kThreads = 256;

// The store in device memory. Quads of codes of 4 bits are two bytes.
struct StoreTask {
  int bits;
  uint8_t* codes;
  float *min, *max;
  int64_t rows, cols;
  bool is_aligned;  // every row of the gradient, and of codes of 8 bits

  __device__ uint8_t* RowCodes(int64_t row) const { return codes + row * FeedbackRowBytes(bits, cols); }
};

__device__ RawQuad LoadCodes(const StoreTask& task, const uint8_t* row_codes, const QuadPlace& place) {
  if (task.bits == 8) return LoadBytes(row_codes, place);
  RawQuad raw = {};
  for (int pair = 0; pair < 2; ++pair) {
    if (2 * pair >= place.count) continue;
    const uint32_t byte = row_codes[place.at / 2 + pair];
    raw.word[0] |= (byte & 15) << (16 * pair) | (byte >> 4) << (16 * pair + 8);
  }
  return raw;
}

// Codes behind `count` are 0.
__device__ void StoreCodes(const StoreTask& task, const RawQuad& raw, const QuadPlace& place, uint8_t* row_codes) {
  if (task.bits == 8) return StoreBytes(raw, place, row_codes);
  for (int pair = 0; pair < 2; ++pair) {
    if (2 * pair >= place.count) continue;
    row_codes[place.at / 2 + pair] = static_cast<uint8_t>(ByteOf(raw, 2 * pair) | ByteOf(raw, 2 * pair + 1) << 4);
  }
}

__global__ void AddCodesKernel(StoreTask task, const float* gradient_factor, float* gradient) {
  const float factor = FactorOf(gradient_factor);
  for (int64_t row = blockIdx.x; row < task.rows; row += gridDim.x) {
    const FeedbackGrid grid(task.bits, task.min[row], task.max[row]);
    const uint8_t* const codes = task.RowCodes(row);
    float* const x = gradient + row * task.cols;
    for (int64_t at = int64_t{threadIdx.x} * 4; at < task.cols; at += kThreads * 4) {
      const QuadPlace place(at, task.cols, task.is_aligned);
      Quad quad = LoadFloats(x, place);
      const RawQuad raw = LoadCodes(task, codes, place);
      for (int j = 0; j < 4; ++j) quad.x[j] = AddFeedbackElement(factor, quad.x[j], grid.Value(ByteOf(raw, j)));
      StoreFloats(quad, place, x);
    }
  }
}

__global__ void AddValuesKernel(const float* values, const float* gradient_factor, int64_t size, bool is_aligned,
                                float* gradient) {
  const float factor = FactorOf(gradient_factor);
  ForQuads(size, is_aligned, [&](const QuadPlace& place) {
    const Quad value = LoadFloats(values, place);
    Quad quad = LoadFloats(gradient, place);
    for (int j = 0; j < 4; ++j) quad.x[j] = AddFeedbackElement(factor, quad.x[j], value.x[j]);
    StoreFloats(quad, place, gradient);
  });
}

struct Min {
  template <typename T>
  __device__ T operator()(T a, T b) const {
    return a < b ? a : b;
  }
};

// A block a row: its extremes, then its codes.
__global__ void StoreRowsKernel(StoreTask task, const float* gradient) {
  for (int64_t row = blockIdx.x; row < task.rows; row += gridDim.x) {
    const float* const x = gradient + row * task.cols;
    float low = x[0], high = x[0];
    for (int64_t at = int64_t{threadIdx.x} * 4; at < task.cols; at += kThreads * 4) {
      const QuadPlace place(at, task.cols, task.is_aligned);
      const Quad quad = LoadFloats(x, place);
      for (int j = 0; j < 4; ++j) {
        if (j >= place.count) continue;
        low = Min()(low, quad.x[j]);
        high = Max()(high, quad.x[j]);
      }
    }
    low = BlockReduce<kThreads>(low, Min()) + 0.0f;  // which zero was met first must not show
    high = BlockReduce<kThreads>(high, Max()) + 0.0f;
    if (threadIdx.x == 0) {
      task.min[row] = low;
      task.max[row] = high;
    }
    const FeedbackGrid grid(task.bits, low, high);
    uint8_t* const codes = task.RowCodes(row);
    for (int64_t at = int64_t{threadIdx.x} * 4; at < task.cols; at += kThreads * 4) {
      const QuadPlace place(at, task.cols, task.is_aligned);
      const Quad quad = LoadFloats(x, place);
      RawQuad raw = {};
      for (int j = 0; j < 4; ++j) {
        if (j < place.count) raw.word[0] |= uint32_t{grid.Code(quad.x[j])} << (j * 8);
      }
      StoreCodes(task, raw, place, codes);
    }
  }
}

__global__ void CopyFloatsKernel(const float* x, int64_t size, bool is_aligned, float* y) {
  ForQuads(size, is_aligned, [&](const QuadPlace& place) { StoreFloats(LoadFloats(x, place), place, y); });
}

StoreTask TaskOf(const FeedbackStore& store, const TensorView& gradient) {
  return {.bits = store.bits,
          .codes = store.codes.as<uint8_t>(),
          .min = store.min.as<float>(),
          .max = store.max.as<float>(),
          .rows = gradient.dim(0),
          .cols = gradient.dim(1),
          .is_aligned = gradient.dim(1) % 4 == 0 && HasAlignedQuads({gradient, store.codes})};
}

}  // namespace

void AddFeedbackCuda(const AddFeedbackArgs& args, Stream& stream) {
  const int64_t size = args.gradient.size();
  if (size == 0) return;
  float* const gradient = args.gradient.as<float>();
  const float* const factor = FactorPointer(args.factor);
  if (args.store.bits == 32) {
    Launch(stream, ElementwiseGrid(size, 4), AddValuesKernel, args.store.codes.as<float>(), factor, size,
           HasAlignedQuads({args.gradient, args.store.codes}), gradient);
    return;
  }
  Launch(stream, RowGrid(args.gradient.dim(0), kThreads), AddCodesKernel, TaskOf(args.store, args.gradient), factor,
         gradient);
}

void KeepResidualCuda(const KeepResidualArgs& args, Stream& stream) {
  const int64_t size = args.gradient.size();
  if (size == 0) return;
  Gemm({.a = args.selected.x,
        .b = args.selected.y,
        .c = args.gradient,
        .transpose_b = args.selected.transpose_y,
        .alpha = -args.share,
        .beta = 1},
       stream);
  const float* const gradient = args.gradient.as<float>();
  if (args.store.bits == 32) {
    Launch(stream, ElementwiseGrid(size, 4), CopyFloatsKernel, gradient, size,
           HasAlignedQuads({args.gradient, args.store.codes}), args.store.codes.as<float>());
    return;
  }
  Launch(stream, RowGrid(args.gradient.dim(0), kThreads), StoreRowsKernel, TaskOf(args.store, args.gradient), gradient);
}

}  // namespace trainyard::kernels::internal
