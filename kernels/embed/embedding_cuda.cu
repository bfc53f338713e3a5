// The backward sorts (token, row) by token, keeping the order of rows, and adds each token's run of rows: no atomics on
// floats. The sort is by digits from the low end; a pass is two kernels: tiles count their digits, then every tile
// derives where its entries go and moves them.
#include <utility>

#include "kernels/core/cells.h"
#include "kernels/core/dispatch.h"
#include "kernels/core/kernel_check.h"
#include "kernels/core/vec.h"
#include "kernels/embed/embedding_internal.h"

namespace trainyard::kernels::internal {
namespace {

using Entry = EmbeddingEntry;

template <int kWidth, typename T>
__global__ void GatherRowsKernel(const int32_t* tokens, const T* table, T* y, int64_t rows, int64_t cols,
                                 int64_t vocab_size) {
  for (Cells at(GlobalThread(), GlobalThreads(), cols / kWidth); at.row < rows; at.Next()) {
    const int64_t token = tokens[at.row];
    CheckIndex(token, vocab_size);
    StoreVec(y + at.row * cols + at.col * kWidth, LoadVec<kWidth>(table + token * cols + at.col * kWidth));
  }
}

constexpr int kDigits = 1 << kDigitBits;
constexpr int kSortThreads = kDigits;  // thread d also keeps the books of digit d
constexpr int kSortWarps = kSortThreads / 32;

// What a pass sorts: the tokens themselves in the first one.
struct SortPass {
  const int32_t* tokens;   // or null
  const Entry* entries;    // if tokens is null
  Entry* sorted;           // not the same list
  uint32_t* digit_counts;  // [tile][digit]
  int64_t count;
  int64_t vocab_size;
  int shift;  // of the digit in the token

  __device__ Entry EntryAt(int64_t i) const {
    if (tokens == nullptr) return entries[i];
    CheckIndex(tokens[i], vocab_size);
    return MakeEntry(tokens[i], i);
  }
  __device__ int DigitOf(Entry entry) const { return static_cast<int>(TokenOf(entry) >> shift) & (kDigits - 1); }
};

__global__ void __launch_bounds__(kSortThreads) CountDigitsKernel(SortPass pass) {
  __shared__ uint32_t counts[kDigits];
  counts[threadIdx.x] = 0;
  __syncthreads();
  const int64_t first = blockIdx.x * kSortTile;
  for (int64_t i = first + threadIdx.x; i < first + kSortTile && i < pass.count; i += kSortThreads) {
    atomicAdd(&counts[pass.DigitOf(pass.EntryAt(i))], uint32_t{1});
  }
  __syncthreads();
  pass.digit_counts[int64_t{blockIdx.x} * kDigits + threadIdx.x] = counts[threadIdx.x];
}

// The sum of the threads before this one. All threads must call, once.
__device__ inline uint32_t SumBefore(uint32_t value) {
  __shared__ uint32_t warp_sums[kSortWarps];
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  uint32_t sum = value;
  TY_UNROLL
  for (int offset = 1; offset < 32; offset *= 2) {
    const uint32_t below = __shfl_up_sync(0xFFFFFFFFu, sum, offset);
    if (lane >= offset) sum += below;
  }
  if (lane == 31) warp_sums[warp] = sum;
  __syncthreads();
  for (int w = 0; w < warp; ++w) sum += warp_sums[w];
  return sum - value;
}

__global__ void __launch_bounds__(kSortThreads) MoveEntriesKernel(SortPass pass) {
  __shared__ uint32_t next[kDigits];                 // where the tile's next entry of a digit goes
  __shared__ uint32_t in_warp[kSortWarps][kDigits];  // entries of a digit in a warp, then where its first one goes
  const int self = static_cast<int>(threadIdx.x);
  const int lane = self % 32;
  const int warp = self / 32;

  const int64_t tiles = (pass.count + kSortTile - 1) / kSortTile;
  uint32_t in_earlier_tiles = 0, in_all_tiles = 0;
  TY_UNROLL_BY(4)
  for (int64_t tile = 0; tile < tiles; ++tile) {
    const uint32_t in_tile = pass.digit_counts[tile * kDigits + self];
    in_earlier_tiles += tile < blockIdx.x ? in_tile : 0;
    in_all_tiles += in_tile;
  }
  next[self] = SumBefore(in_all_tiles) + in_earlier_tiles;

  for (int64_t offset = 0; offset < kSortTile; offset += kSortThreads) {
    for (int w = 0; w < kSortWarps; ++w) in_warp[w][self] = 0;
    __syncthreads();
    const int64_t i = blockIdx.x * kSortTile + offset + self;
    const bool is_entry = i < pass.count;
    const Entry entry = is_entry ? pass.EntryAt(i) : 0;
    const int digit = pass.DigitOf(entry);
    // The lanes with the same digit.
    uint32_t peers = __ballot_sync(0xFFFFFFFFu, is_entry);
    TY_UNROLL
    for (int bit = 0; bit < kDigitBits; ++bit) {
      const bool is_set = (digit >> bit & 1) != 0;
      const uint32_t set = __ballot_sync(0xFFFFFFFFu, is_set);
      peers &= is_set ? set : ~set;
    }
    const int rank = __popc(peers & ((1u << lane) - 1));
    if (is_entry && rank == 0) in_warp[warp][digit] = static_cast<uint32_t>(__popc(peers));
    __syncthreads();
    uint32_t place = next[self];
    for (int w = 0; w < kSortWarps; ++w) {
      const uint32_t entries = in_warp[w][self];
      in_warp[w][self] = place;
      place += entries;
    }
    next[self] = place;
    __syncthreads();
    if (is_entry) pass.sorted[in_warp[warp][digit] + static_cast<uint32_t>(rank)] = entry;
    __syncthreads();
  }
}

// Adding runs: a block looks at this many positions of the sorted list. A warp adds a run that begins there and is not
// longer; a longer one contains a position that is a multiple of kShortRun, and the block of the first such adds it.
constexpr int kShortRun = 32;
constexpr int kAddThreads = 256;
constexpr int kAddWarps = kAddThreads / 32;

// The end of the run that contains `at`. All lanes of a warp call with the same values.
__device__ inline int64_t EndOfRun(const Entry* sorted, int64_t at, int64_t count) {
  const int64_t token = TokenOf(sorted[at]);
  int64_t inside = at, outside = count;
  while (outside - inside > 1) {
    const int64_t step = (outside - inside + 31) / 32;
    const int64_t probe = inside + step * (static_cast<int64_t>(threadIdx.x) % 32 + 1);
    const bool is_inside = probe < outside && TokenOf(sorted[probe]) == token;
    const int64_t steps = __popc(__ballot_sync(0xFFFFFFFFu, is_inside));  // the list is sorted: the lower lanes
    inside += steps * step;
    outside = inside + step < outside ? inside + step : outside;
  }
  return outside;
}

template <int kWidth, typename T>
__device__ Vec<float, kWidth> SumRows(const Entry* sorted, int64_t first, int64_t end, int64_t step, const T* dy,
                                      int64_t cols) {
  Vec<float, kWidth> sums = {};
  TY_UNROLL_BY(4)
  for (int64_t i = first; i < end; i += step) {
    const Vec<float, kWidth> row = Widen(LoadVec<kWidth>(dy + RowOf(sorted[i]) * cols));
    TY_UNROLL
    for (int e = 0; e < kWidth; ++e) sums[e] += row[e];
  }
  return sums;
}

template <int kWidth, typename D>
__device__ void AddTo(D* out, const Vec<float, kWidth>& sums) {
  Vec<float, kWidth> value = Widen(LoadVec<kWidth>(out));
  TY_UNROLL
  for (int e = 0; e < kWidth; ++e) value[e] += sums[e];
  StoreVec(out, Narrow<D>(value));
}

template <int kWidth, typename T, typename D>
__global__ void __launch_bounds__(kAddThreads)
    AddRunsKernel(const Entry* sorted, int64_t count, const T* dy, D* dtable, int64_t cols) {
  __shared__ float partials[kAddWarps][kWidth][32];
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int64_t first = int64_t{blockIdx.x} * kShortRun;
  const int64_t c = (int64_t{blockIdx.y} * 32 + lane) * kWidth;
  const bool has_columns = c < cols;

  for (int64_t i = first + warp; i < first + kShortRun && i < count; i += kAddWarps) {
    const int64_t token = TokenOf(sorted[i]);
    if (i > 0 && TokenOf(sorted[i - 1]) == token) continue;
    const int64_t probe = i + 1 + lane;
    const int followers = __popc(__ballot_sync(0xFFFFFFFFu, probe < count && TokenOf(sorted[probe]) == token));
    if (followers >= kShortRun || !has_columns) continue;
    AddTo(dtable + token * cols + c, SumRows<kWidth>(sorted, i, i + 1 + followers, 1, dy + c, cols));
  }

  const int64_t token = TokenOf(sorted[first]);
  if (first >= kShortRun && TokenOf(sorted[first - kShortRun]) == token) return;  // an earlier block's
  const int64_t probe = first - 1 - lane;
  const int leaders = __popc(__ballot_sync(0xFFFFFFFFu, probe >= 0 && TokenOf(sorted[probe]) == token));
  const int64_t begin = first - leaders;
  const int64_t end = EndOfRun(sorted, first, count);
  if (end - begin <= kShortRun) return;
  // Every warp adds each kAddWarps-th row; the sums of the warps are added in their order.
  if (has_columns) {
    const Vec<float, kWidth> sums = SumRows<kWidth>(sorted, begin + warp, end, kAddWarps, dy + c, cols);
    TY_UNROLL
    for (int e = 0; e < kWidth; ++e) partials[warp][e][lane] = sums[e];
  }
  __syncthreads();
  if (warp > 0 || !has_columns) return;
  Vec<float, kWidth> total = {};
  for (int w = 0; w < kAddWarps; ++w) {
    TY_UNROLL
    for (int e = 0; e < kWidth; ++e) total[e] += partials[w][e][lane];
  }
  AddTo(dtable + token * cols + c, total);
}

const Entry* SortByToken(const EmbeddingBackwardArgs& args, Stream& stream) {
  const int64_t count = args.tokens.size();
  Entry* sorted = static_cast<Entry*>(args.workspace.data());
  Entry* spare = sorted + count;
  SortPass pass = {.tokens = args.tokens.as<int32_t>(),
                   .entries = nullptr,
                   .sorted = nullptr,
                   .digit_counts = reinterpret_cast<uint32_t*>(spare + count),
                   .count = count,
                   .vocab_size = args.dtable.dim(0),
                   .shift = 0};
  const Grid grid = {.blocks = SortTiles(count), .threads = kSortThreads};
  do {
    std::swap(sorted, spare);
    pass.sorted = sorted;
    Launch(stream, grid, CountDigitsKernel, pass);
    Launch(stream, grid, MoveEntriesKernel, pass);
    pass.tokens = nullptr;
    pass.entries = sorted;
    pass.shift += kDigitBits;
  } while ((pass.vocab_size - 1) >> pass.shift > 0);
  return sorted;
}

template <typename T, typename D>
void AddRuns(const EmbeddingBackwardArgs& args, const Entry* sorted, Stream& stream) {
  const int64_t count = args.tokens.size();
  const int64_t cols = args.dtable.dim(1);
  constexpr int kWidth = kVecWidth<T>;
  const bool vectors = cols % kWidth == 0 && AllVecAligned(args.dy.as<T>(), args.dtable.as<D>());
  const int64_t strip = 32 * (vectors ? kWidth : 1);
  Launch(
      stream,
      {.blocks = (count + kShortRun - 1) / kShortRun, .threads = kAddThreads, .blocks_y = (cols + strip - 1) / strip},
      vectors ? AddRunsKernel<kWidth, T, D> : AddRunsKernel<1, T, D>, sorted, count, args.dy.as<T>(),
      args.dtable.as<D>(), cols);
}

}  // namespace

void EmbeddingForwardCuda(const EmbeddingForwardArgs& args, Stream& stream) {
  const int64_t rows = args.tokens.size();
  const int64_t cols = args.table.dim(1);
  if (rows == 0 || cols == 0) return;
  DispatchFloat(args.table.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    constexpr int kWidth = kVecWidth<T>;
    const bool vectors = cols % kWidth == 0 && AllVecAligned(args.table.as<T>(), args.y.as<T>());
    Launch(stream, ElementwiseGrid(rows * cols, vectors ? kWidth : 1),
           vectors ? GatherRowsKernel<kWidth, T> : GatherRowsKernel<1, T>, args.tokens.as<int32_t>(),
           args.table.as<T>(), args.y.as<T>(), rows, cols, args.table.dim(0));
  });
}

void EmbeddingBackwardCuda(const EmbeddingBackwardArgs& args, Stream& stream) {
  if (args.tokens.size() == 0 || args.dtable.dim(1) == 0) return;
  const Entry* const sorted = SortByToken(args, stream);
  if (args.dy.dtype() == DType::kF32) return AddRuns<float, float>(args, sorted, stream);
  if (args.dtable.dtype() == DType::kF32) return AddRuns<BFloat16, float>(args, sorted, stream);
  AddRuns<BFloat16, BFloat16>(args, sorted, stream);
}

}  // namespace trainyard::kernels::internal
