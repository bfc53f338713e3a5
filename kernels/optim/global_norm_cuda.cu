#include "kernels/optim/global_norm_internal.h"
#include "kernels/optim/quads.h"

namespace trainyard::kernels::internal {
namespace {

constexpr int kThreads = 256, kFinishThreads = 1024;

// One partial sum a block of threads; four sums a thread, so that its additions do not wait for each other.
__global__ void PartialSquaresKernel(QuadArray x, int64_t size, int64_t block_elements, int64_t blocks, bool is_aligned,
                                     double* partials) {
  for (int64_t block = blockIdx.x; block < blocks; block += gridDim.x) {
    const int64_t begin = block * block_elements;
    const int64_t end = begin + block_elements < size ? begin + block_elements : size;
    double sums[4] = {};
    for (int64_t at = begin + int64_t{threadIdx.x} * 4; at < end; at += kThreads * 4) {
      const QuadPlace place(at, end, is_aligned);
      const Quad quad = DecodeQuad(x.dtype, LoadQuad(x, place));  // 0 behind the end
      for (int j = 0; j < 4; ++j) {
        const double value = static_cast<double>(quad.x[j]);
        sums[j] = fma(value, value, sums[j]);  // the square is exact either way
      }
    }
    const double sum = BlockReduce<kThreads>((sums[0] + sums[1]) + (sums[2] + sums[3]), Sum());
    if (threadIdx.x == 0) partials[block] = sum;
  }
}

__global__ void FinishNormKernel(const double* partials, int64_t count, float grad_scale, float max_norm, float* norm,
                                 float* clip_factor) {
  double sum = 0;
  for (int64_t i = threadIdx.x; i < count; i += kFinishThreads) sum += partials[i];
  sum = BlockReduce<kFinishThreads>(sum, Sum());
  if (threadIdx.x == 0) StoreNorm(sum, grad_scale, max_norm, norm, clip_factor);
}

}  // namespace

void GlobalNormCuda(const GlobalNormArgs& args, Stream& stream) {
  double* const partials = static_cast<double*>(args.workspace.data());
  int64_t first = 0;  // number of the tensor's first block
  for (const TensorView& x : args.tensors) {
    const int64_t blocks = NormBlocksOf(x);
    if (blocks == 0) continue;
    Launch(stream, RowGrid(blocks, kThreads), PartialSquaresKernel, QuadArray(x), x.size(), kNormBlock, blocks,
           HasAlignedQuads({x}), partials + first);
    first += blocks;
  }
  Launch(stream, {.threads = kFinishThreads}, FinishNormKernel, partials, first, args.grad_scale, args.max_norm,
         args.norm.as<float>(), args.clip_factor ? args.clip_factor.as<float>() : nullptr);
}

void SquareSumsCuda(const SquareSumsArgs& args, Stream& stream) {
  double* sums = static_cast<double*>(args.sums.data());
  for (const NormPiece& piece : args.pieces) {
    const int64_t blocks = BlocksOf(piece);
    if (blocks == 0) continue;
    const bool is_aligned = HasAlignedQuads({piece.x}) && piece.block % 4 == 0;
    Launch(stream, RowGrid(blocks, kThreads), PartialSquaresKernel, QuadArray(piece.x), piece.x.size(), piece.block,
           blocks, is_aligned, sums);
    sums += blocks;
  }
}

}  // namespace trainyard::kernels::internal
