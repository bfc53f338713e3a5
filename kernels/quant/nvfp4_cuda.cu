#include "kernels/quant/group_tile.h"
#include "kernels/quant/nvfp4_group.h"
#include "kernels/quant/nvfp4_internal.h"

namespace trainyard::kernels::internal {
namespace {

constexpr int kSquareRows = 16;
constexpr int kTileSquares = kTileGroups / kSquareRows;

struct Job {
  Floats x;
  const float* amax;
  const float* x_scale;
  NvFormat format;
  PhiloxKey random;
  int64_t size, cols;
  float* tensor_scale;
  uint8_t* packed;  // null: not there, as the others
  Float8E4M3* scales;
  Floats values;
};

__device__ inline void StoreTensorScale(const Job& job, const NvPlan& plan) {
  *job.tensor_scale = plan.tensor_scale * (job.x_scale == nullptr ? 1.0f : *job.x_scale);
}

__device__ inline void Emit(const Job& job, const NvGroup& group, int64_t first, float* row) {
  if (job.packed != nullptr) NvStorePacked(group.levels, job.packed + first / 2);
  if (job.scales != nullptr) {
    job.scales[first / kNvGroup] = RoundNearest<Float8E4M3>(group.scale, Overflow::kSaturate);
  }
  if (job.values.data == nullptr) return;
  TY_UNROLL
  for (int i = 0; i < kNvGroup; ++i) row[i] = group.levels[i] * group.scale;
}

__device__ inline NvGroup Nearest(const float* x, float scale, float tensor_scale) {
  NvGroup group;
  group.scale = scale;
  float u[kNvGroup];
  NvInUnits(x, NvInverse(scale, tensor_scale), u);
  NvNearestLevels(u, group.levels);
  return group;
}

__device__ inline NvGroup Stochastic(const Job& job, const float* x, float scale, float tensor_scale,
                                     int64_t first_word) {
  NvGroup group;
  group.scale = scale;
  float u[kNvGroup];
  NvInUnits(x, NvInverse(scale, tensor_scale), u);
  NvStochasticLevels(u, job.random, first_word, group.levels);
  return group;
}

// Value by value: of a choice between two structs the compiler may make a choice between two addresses.
__device__ inline NvGroup Choose(bool takes_other, const NvGroup& group, const NvGroup& other) {
  NvGroup chosen;
  chosen.scale = takes_other ? other.scale : group.scale;
  TY_UNROLL
  for (int i = 0; i < kNvGroup; ++i) chosen.levels[i] = takes_other ? other.levels[i] : group.levels[i];
  return chosen;
}

__device__ inline NvGroup Better(const float* x, const NvGroup& group, const NvGroup& other, float tensor_scale) {
  return Choose(NvSquaredError(x, other, tensor_scale) < NvSquaredError(x, group, tensor_scale), group, other);
}

// `span` groups, neighbouring threads, have one factor. All lanes must call.
__device__ inline NvGroup Eden(const Job& job, const float* x, float scale, float tensor_scale, int64_t first) {
  NvGroup group;
  float u[kNvGroup];
  NvInUnits(x, NvInverse(scale, tensor_scale), u);
  NvNearestLevels(u, group.levels);
  float squares = NvGroupDot(u, u);
  float products = NvGroupDot(u, group.levels);
  const int span = job.format.eden_group / kNvGroup;
  if (span > 1) {
    const int base = static_cast<int>(threadIdx.x) % 32 / span * span;
    float all_squares = __shfl_sync(0xFFFFFFFFu, squares, base);
    float all_products = __shfl_sync(0xFFFFFFFFu, products, base);
    for (int member = 1; member < span; ++member) {
      all_squares += __shfl_sync(0xFFFFFFFFu, squares, base + member);
      all_products += __shfl_sync(0xFFFFFFFFu, products, base + member);
    }
    squares = all_squares;
    products = all_products;
  }
  const uint32_t word = RandomWord(job.random, static_cast<uint64_t>(first / kNvGroup));
  group.scale =
      WidenToFloat(RoundStochastic<Float8E4M3>(scale * EdenFactor(squares, products), word, Overflow::kSaturate));
  return group;
}

template <NvMethod kMethod>
__device__ inline NvGroup Encode(const Job& job, const NvPlan& plan, const float* x, int64_t first) {
  const float largest = NvGroupLargest(x);
  const float scale = NvGroupScale(largest, plan, 1.0f);
  if constexpr (kMethod == NvMethod::kNearest) {
    return Nearest(x, scale, plan.tensor_scale);
  } else if constexpr (kMethod == NvMethod::kFourOverSix) {
    return Better(x, Nearest(x, scale, plan.tensor_scale),
                  Nearest(x, NvGroupScale(largest, plan, 1.5f), plan.tensor_scale), plan.tensor_scale);
  } else if constexpr (kMethod == NvMethod::kStochastic) {
    return Stochastic(job, x, scale, plan.tensor_scale, first);
  } else if constexpr (kMethod == NvMethod::kStochasticFourOverSix) {
    return Better(x, Stochastic(job, x, scale, plan.tensor_scale, first),
                  Stochastic(job, x, NvGroupScale(largest, plan, 1.5f), plan.tensor_scale, job.size + first),
                  plan.tensor_scale);
  } else {
    return Eden(job, x, scale, plan.tensor_scale, first);
  }
}

template <NvMethod kMethod>
__global__ void RunsKernel(Job job) {
  __shared__ float tile[kTileFloats<kNvGroup>];
  const NvPlan plan = MakeNvPlan(job.format, *job.amax);
  if (blockIdx.x == 0 && threadIdx.x == 0) StoreTensorScale(job, plan);
  constexpr int64_t kTileElements = kTileGroups * kNvGroup;
  for (int64_t begin = blockIdx.x * kTileElements; begin < job.size; begin += gridDim.x * kTileElements) {
    const auto place = [&](int group) {
      const int64_t at = begin + group * kNvGroup;
      return at < job.size ? at : int64_t{-1};
    };
    LoadTile<kNvGroup>(job.x, place, tile);
    float* const row = TileRow<kNvGroup>(tile);
    float x[kNvGroup];
    TY_UNROLL
    for (int i = 0; i < kNvGroup; ++i) x[i] = row[i];
    const int64_t first = begin + threadIdx.x * kNvGroup;
    const NvGroup group = Encode<kMethod>(job, plan, x, first);
    if (first < job.size) Emit(job, group, first, row);
    if (job.values.data != nullptr) StoreTile<kNvGroup>(tile, place, job.values);
    __syncthreads();
  }
}

// A tile is eight squares side by side: thread 8 r + s has row r of square s.
template <bool kFourOverSix>
__global__ void SquaresKernel(Job job) {
  __shared__ float tile[kTileFloats<kNvGroup>];
  __shared__ float of_rows[2][kTileGroups];
  const NvPlan plan = MakeNvPlan(job.format, *job.amax);
  if (blockIdx.x == 0 && threadIdx.x == 0) StoreTensorScale(job, plan);
  const int64_t squares = job.cols / kNvGroup;  // of a stripe
  const int64_t stripe_tiles = (squares + kTileSquares - 1) / kTileSquares;
  const int64_t tiles = job.size / (kSquareRows * job.cols) * stripe_tiles;
  const int self = static_cast<int>(threadIdx.x);
  const int square = self % kTileSquares;
  for (int64_t t = blockIdx.x; t < tiles; t += gridDim.x) {
    const int64_t top = t / stripe_tiles * kSquareRows * job.cols;
    const int64_t first_square = t % stripe_tiles * kTileSquares;
    const auto place = [&](int group) {
      const int64_t s = first_square + group % kTileSquares;
      return s < squares ? top + group / kTileSquares * job.cols + s * kNvGroup : int64_t{-1};
    };
    LoadTile<kNvGroup>(job.x, place, tile);
    float* const row = TileRow<kNvGroup>(tile);
    float x[kNvGroup];
    TY_UNROLL
    for (int i = 0; i < kNvGroup; ++i) x[i] = row[i];

    of_rows[0][self] = NvGroupLargest(x);
    __syncthreads();
    uint32_t bits = 0;  // NaN above all
    TY_UNROLL
    for (int r = 0; r < kSquareRows; ++r) {
      const uint32_t of_row = __builtin_bit_cast(uint32_t, of_rows[0][r * kTileSquares + square]);
      bits = of_row > bits ? of_row : bits;
    }
    const float largest = __builtin_bit_cast(float, bits);
    NvGroup group = Nearest(x, NvGroupScale(largest, plan, 1.0f), plan.tensor_scale);
    if constexpr (kFourOverSix) {
      const NvGroup other = Nearest(x, NvGroupScale(largest, plan, 1.5f), plan.tensor_scale);
      __syncthreads();  // of_rows has been read
      of_rows[0][self] = NvSquaredError(x, group, plan.tensor_scale);
      of_rows[1][self] = NvSquaredError(x, other, plan.tensor_scale);
      __syncthreads();
      float error = 0, other_error = 0;
      TY_UNROLL
      for (int r = 0; r < kSquareRows; ++r) {
        error += of_rows[0][r * kTileSquares + square];
        other_error += of_rows[1][r * kTileSquares + square];
      }
      group = Choose(other_error < error, group, other);
    }
    if (const int64_t first = place(self); first >= 0) Emit(job, group, first, row);
    if (job.values.data != nullptr) StoreTile<kNvGroup>(tile, place, job.values);
    __syncthreads();
  }
}

void (*KernelOf(const NvFormat& format))(Job) {
  if (format.block == NvBlock::k16x16) {
    return format.method == NvMethod::kFourOverSix ? SquaresKernel<true> : SquaresKernel<false>;
  }
  switch (format.method) {
    case NvMethod::kNearest:
      return RunsKernel<NvMethod::kNearest>;
    case NvMethod::kFourOverSix:
      return RunsKernel<NvMethod::kFourOverSix>;
    case NvMethod::kStochastic:
      return RunsKernel<NvMethod::kStochastic>;
    case NvMethod::kStochasticFourOverSix:
      return RunsKernel<NvMethod::kStochasticFourOverSix>;
    case NvMethod::kMsEden:
      break;
  }
  return RunsKernel<NvMethod::kMsEden>;
}

}  // namespace

void NvQuantizeCuda(const NvQuantizeArgs& args, Stream& stream) {
  const int64_t size = args.x.size();
  const int64_t cols = args.x.dim(1);
  const Job job = {.x = args.x,
                   .amax = args.amax.as<float>(),
                   .x_scale = args.x_scale ? args.x_scale.as<float>() : nullptr,
                   .format = args.format,
                   .random = args.random,
                   .size = size,
                   .cols = cols,
                   .tensor_scale = args.tensor_scale.as<float>(),
                   .packed = args.packed ? args.packed.as<uint8_t>() : nullptr,
                   .scales = args.scales ? args.scales.as<Float8E4M3>() : nullptr,
                   .values = args.values};
  int64_t tiles = (size / kNvGroup + kTileGroups - 1) / kTileGroups;
  if (args.format.block == NvBlock::k16x16 && cols > 0) {
    tiles = args.x.dim(0) / kSquareRows * ((cols / kNvGroup + kTileSquares - 1) / kTileSquares);
  }
  Launch(stream, TileGrid(tiles), KernelOf(args.format), job);
}

}  // namespace trainyard::kernels::internal
