// A block computes 64 x 64 exact sums over steps of 64 codes in shared memory, four codes a word.
#include "kernels/core/block_reduce.h"
#include "kernels/core/dispatch.h"
#include "kernels/gemm/int_gemm_internal.h"

namespace trainyard::kernels::internal {
namespace {

constexpr int kExtent = 64;
constexpr int kWords = 16;  // of four codes: a step along the depth
constexpr int kThreads = 256;

// The codes of one operand.
struct Codes {
  const uint8_t* data = nullptr;
  int64_t row_bytes = 0;
  int64_t rows = 0, depth = 0;
  bool packed = false;
  bool in_words = false;  // unpacked rows that may be read four bytes at a time
};

Codes CodesOf(const IntCodes& codes, int64_t depth) {
  const uint8_t* data = codes.codes.as<uint8_t>();
  const int64_t row_bytes = codes.codes.dim(1);
  const bool in_words = !codes.packed && row_bytes % 4 == 0 && reinterpret_cast<uintptr_t>(data) % 4 == 0;
  return {data, row_bytes, codes.codes.dim(0), depth, codes.packed, in_words};
}

// Code k of a row as a signed number.
__device__ inline int CodeAt(const Codes& codes, const uint8_t* row, int64_t k) {
  if (!codes.packed) return static_cast<int8_t>(row[k]);
  const int half = (row[k / 2] >> (k % 2 * 4)) & 15;
  return (half ^ 8) - 8;
}

// Codes k .. k + 3 of a row, k a multiple of 4, as bytes of a word, the first lowest; zeros beyond the ends.
__device__ inline uint32_t WordAt(const Codes& codes, int64_t r, int64_t k) {
  if (r >= codes.rows) return 0;
  const uint8_t* row = codes.data + r * codes.row_bytes;
  if (codes.in_words && k + 4 <= codes.depth) return *reinterpret_cast<const uint32_t*>(row + k);
  uint32_t word = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int code = k + i < codes.depth ? CodeAt(codes, row, k + i) : 0;
    word |= static_cast<uint32_t>(code & 255) << (8 * i);
  }
  return word;
}

// sum + the products of four pairs of signed bytes.
__device__ inline int32_t DotOfFour(uint32_t a, uint32_t b, int32_t sum) {
#if defined(__CUDA_ARCH__)
  return __dp4a(static_cast<int>(a), static_cast<int>(b), sum);
#else
  for (int i = 0; i < 4; ++i) sum += static_cast<int8_t>(a >> (8 * i)) * static_cast<int8_t>(b >> (8 * i));
  return sum;
#endif
}

// Calls finish(row, col, sum) for every element of the product.
template <typename Finish>
__global__ void __launch_bounds__(kThreads) ProductKernel(Codes a, Codes b, Finish finish) {
  __shared__ uint32_t a_tile[kWords][kExtent + 1];
  __shared__ uint32_t b_tile[kWords][kExtent + 1];
  const int thread = static_cast<int>(threadIdx.x);
  const int across = thread % 16;
  const int down = thread / 16;
  const int64_t tiles_across = (b.rows + kExtent - 1) / kExtent;
  const int64_t tiles = (a.rows + kExtent - 1) / kExtent * tiles_across;
  for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const int64_t row = tile / tiles_across * kExtent;
    const int64_t col = tile % tiles_across * kExtent;
    int32_t sums[4][4] = {};
    for (int64_t at = 0; at < a.depth; at += 4 * kWords) {
      __syncthreads();  // the last step's tiles have been read
#pragma unroll
      for (int step = 0; step < kExtent * kWords / kThreads; ++step) {
        const int i = step * kThreads + thread;
        a_tile[i % kWords][i / kWords] = WordAt(a, row + i / kWords, at + 4 * (i % kWords));
        b_tile[i % kWords][i / kWords] = WordAt(b, col + i / kWords, at + 4 * (i % kWords));
      }
      __syncthreads();
#pragma unroll
      for (int w = 0; w < kWords; ++w) {
        uint32_t left[4], right[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) left[i] = a_tile[w][down + 16 * i];
#pragma unroll
        for (int j = 0; j < 4; ++j) right[j] = b_tile[w][across + 16 * j];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
#pragma unroll
          for (int j = 0; j < 4; ++j) sums[i][j] = DotOfFour(left[i], right[j], sums[i][j]);
        }
      }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int64_t r = row + down + 16 * i;
        const int64_t c = col + across + 16 * j;
        if (r < a.rows && c < b.rows) finish(r, c, sums[i][j]);
      }
    }
  }
}

template <typename Finish>
void LaunchProduct(const Codes& a, const Codes& b, const Finish& finish, Stream& stream) {
  const int64_t tiles = (a.rows + kExtent - 1) / kExtent * ((b.rows + kExtent - 1) / kExtent);
  if (tiles == 0) return;
  Launch(stream, RowGrid(tiles, kThreads), ProductKernel<Finish>, a, b, finish);
}

struct StoreSum {
  int32_t* c = nullptr;
  int64_t cols = 0;
  __device__ void operator()(int64_t row, int64_t col, int32_t sum) const { c[row * cols + col] = sum; }
};

template <typename Y>
struct StoreGridValue {
  Y* y = nullptr;
  int64_t cols = 0, depth = 0;
  const float* a_steps = nullptr;
  const float* b_steps = nullptr;
  const int32_t* a_sums = nullptr;
  const int32_t* b_sums = nullptr;
  const float* bias_f32 = nullptr;  // at most one of the two
  const BFloat16* bias_bf16 = nullptr;

  __device__ void operator()(int64_t row, int64_t col, int32_t sum) const {
    float value = GridValue(sum, GridRowTerm(a_sums[row], depth), a_steps[row], b_sums[col], b_steps[col]);
    if (bias_f32 != nullptr) value += bias_f32[col];
    if (bias_bf16 != nullptr) value += ToFloat(bias_bf16[col]);
    y[row * cols + col] = FromFloat<Y>(value);
  }
};

// A warp a row.
__global__ void RowSumsKernel(Codes codes, int32_t* sums) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (int64_t r = GlobalThread() / 32; r < codes.rows; r += GlobalThreads() / 32) {
    int32_t sum = 0;
    for (int64_t k = 4 * lane; k < codes.depth; k += 4 * 32) sum = DotOfFour(WordAt(codes, r, k), 0x01010101u, sum);
    sum = WarpReduce(sum, Sum());
    if (lane == 0) sums[r] = sum;
  }
}

}  // namespace

void IntGemmCuda(const IntGemmArgs& args, Stream& stream) {
  LaunchProduct(CodesOf(args.a, args.depth), CodesOf(args.b, args.depth), StoreSum{args.c.as<int32_t>(), args.c.dim(1)},
                stream);
}

void CodeRowSumsCuda(const CodeRowSumsArgs& args, Stream& stream) {
  const Codes codes = CodesOf(args.a, args.depth);
  if (codes.rows == 0) return;
  Launch(stream, ElementwiseGrid(32 * codes.rows), RowSumsKernel, codes, args.sums.as<int32_t>());
}

void IntGridLinearCuda(const IntGridLinearArgs& args, Stream& stream) {
  DispatchFloat(args.y.dtype(), [&](auto tag) {
    using Y = typename decltype(tag)::type;
    StoreGridValue<Y> finish;
    finish.y = args.y.as<Y>();
    finish.cols = args.y.dim(1);
    finish.depth = args.depth;
    finish.a_steps = args.a_steps.as<float>();
    finish.b_steps = args.b_steps.as<float>();
    finish.a_sums = args.a_sums.as<int32_t>();
    finish.b_sums = args.b_sums.as<int32_t>();
    if (args.bias && args.bias.dtype() == DType::kF32) finish.bias_f32 = args.bias.as<float>();
    if (args.bias && args.bias.dtype() == DType::kBF16) finish.bias_bf16 = args.bias.as<BFloat16>();
    LaunchProduct(CodesOf(args.a, args.depth), CodesOf(args.b, args.depth), finish, stream);
  });
}

}  // namespace trainyard::kernels::internal
