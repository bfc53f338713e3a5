#include "kernels/optim/blockwise/moment8.h"
#include "kernels/prune/prune_select_internal.h"
#include "kernels/prune/stored_quads.h"

namespace trainyard::kernels::internal {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;
constexpr int64_t kPieces = 256;  // of a tensor whose ties are ranked: as many as there are counts

struct ScoreTask {
  const float* w;
  QuadArray fisher;
  const float* fisher_scales;
  float factor;
  int64_t size;
  bool is_aligned;

  explicit ScoreTask(const PruneScore& score)
      : w(score.w.as<float>()),
        fisher(score.fisher),
        fisher_scales(score.fisher && score.fisher.dtype() == DType::kU8 ? score.fisher_scales.as<float>() : nullptr),
        factor(score.fisher_factor),
        size(score.w.size()),
        is_aligned(HasAlignedQuads({score.w, score.fisher})) {}
};

// Of four neighbouring elements; 0 behind the place's count.
struct KeyQuad {
  uint64_t key[4];

  __device__ KeyQuad(const ScoreTask& task, const QuadPlace& place) : key() {
    const RawQuad raw_w = LoadWords(task.w, place);
    const RawQuad raw_fisher = task.fisher.data == nullptr ? RawQuad{} : LoadQuad(task.fisher, place);
    const Quad w = DecodeQuad(DType::kF32, raw_w);
    if (task.fisher.data == nullptr) {
      for (int j = 0; j < 4; ++j) key[j] = uint64_t{MagnitudeBits(w.x[j])} << 32;
      return;
    }
    Quad fisher = {};
    if (task.fisher_scales == nullptr) {
      fisher = DecodeQuad(DType::kF32, raw_fisher);
    } else if (place.count > 0) {
      const float scale = task.fisher_scales[place.at / kMoment8Block];  // a quad lies in one block
      for (int j = 0; j < 4; ++j) fisher.x[j] = SecondMomentOf(ByteOf(raw_fisher, j), scale);
    }
    for (int j = 0; j < 4; ++j) {
      key[j] = (uint64_t{ScoreBits(w.x[j], fisher.x[j], task.factor)} << 32) | MagnitudeBits(w.x[j]);
    }
  }
};

// Of the eight elements of one byte of a mask.
struct KeyByte {
  QuadPlace places[2];
  KeyQuad quads[2];

  __device__ KeyByte(const ScoreTask& task, int64_t first, int64_t end)
      : places{{first, end, task.is_aligned}, {first + 4, end, task.is_aligned}},
        quads{{task, places[0]}, {task, places[1]}} {}

  __device__ int count() const { return places[0].count + places[1].count; }
  __device__ uint64_t key(int i) const { return quads[i / 4].key[i % 4]; }
};

__global__ void ClearKernel(uint32_t* counts, int64_t size) {
  for (int64_t i = GlobalThread(); i < size; i += GlobalThreads()) counts[i] = 0;
}

// A table a warp, so that fewer threads wait for each other where neighbours share a bin.
__global__ void HistogramKernel(ScoreTask task, uint64_t prefix, int shift, uint32_t* counts) {
  __shared__ uint32_t tables[kWarps][256];
  for (int i = static_cast<int>(threadIdx.x); i < kWarps * 256; i += kThreads) tables[i / 256][i % 256] = 0;
  __syncthreads();
  uint32_t* const own = tables[threadIdx.x / 32];
  ForQuads(task.size, task.is_aligned, [&](const QuadPlace& place) {
    const KeyQuad keys(task, place);
    for (int j = 0; j < 4; ++j) {
      if (j >= place.count || ((keys.key[j] ^ prefix) >> shift) >> 8 != 0) continue;
      atomicAdd(&own[(keys.key[j] >> shift) & 255], 1u);
    }
  });
  __syncthreads();
  for (int bin = static_cast<int>(threadIdx.x); bin < 256; bin += kThreads) {
    uint32_t sum = 0;
    for (int warp = 0; warp < kWarps; ++warp) sum += tables[warp][bin];
    if (sum > 0) atomicAdd(&counts[bin], sum);
  }
}

__global__ void EqualKernel(ScoreTask task, uint64_t key, uint32_t* count) {
  uint32_t equal = 0;
  ForQuads(task.size, task.is_aligned, [&](const QuadPlace& place) {
    const KeyQuad keys(task, place);
    for (int j = 0; j < 4; ++j) equal += j < place.count && keys.key[j] == key ? 1u : 0u;
  });
  equal = BlockReduce<kThreads>(equal, Sum());
  if (threadIdx.x == 0 && equal > 0) atomicAdd(count, equal);
}

// A byte of the mask a thread.
__global__ void MaskKernel(ScoreTask task, uint64_t first_kept, uint8_t* mask) {
  for (int64_t byte = GlobalThread(); byte * 8 < task.size; byte += GlobalThreads()) {
    const KeyByte keys(task, byte * 8, task.size);
    uint32_t bits = 0;
    TY_UNROLL
    for (int i = 0; i < 8; ++i) bits |= i < keys.count() && keys.key(i) >= first_kept ? 1u << i : 0u;
    mask[byte] = static_cast<uint8_t>(bits);
  }
}

// The bytes of the mask that one block of threads makes where ties are ranked.
struct Piece {
  int64_t begin, end;

  __device__ explicit Piece(const ScoreTask& task) {
    const int64_t bytes = (task.size + 7) / 8;
    const int64_t share = (bytes + kPieces - 1) / kPieces;
    begin = share * blockIdx.x < bytes ? share * blockIdx.x : bytes;
    end = begin + share < bytes ? begin + share : bytes;
  }
};

__global__ void TiesOfPiecesKernel(ScoreTask task, uint64_t key, uint32_t* counts) {
  const Piece piece(task);
  uint32_t equal = 0;
  for (int64_t byte = piece.begin + threadIdx.x; byte < piece.end; byte += kThreads) {
    const KeyByte keys(task, byte * 8, task.size);
    TY_UNROLL
    for (int i = 0; i < 8; ++i) equal += i < keys.count() && keys.key(i) == key ? 1u : 0u;
  }
  equal = BlockReduce<kThreads>(equal, Sum());
  if (threadIdx.x == 0) counts[blockIdx.x] = equal;
}

// Sum of the values of the block's threads before this one, and of all.
struct BlockScan {
  uint32_t before, total;

  __device__ explicit BlockScan(uint32_t value) {
    __shared__ uint32_t sums[kWarps];
    const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
    uint32_t sum = value;
    for (int offset = 1; offset < 32; offset *= 2) {
      const uint32_t lower = __shfl_up_sync(0xFFFFFFFFu, sum, static_cast<unsigned>(offset));
      if (lane >= offset) sum += lower;
    }
    __syncthreads();  // the last scan's sums have been read
    if (lane == 31) sums[warp] = sum;
    __syncthreads();
    before = sum - value;
    total = 0;
    for (int w = 0; w < kWarps; ++w) {
      if (w < warp) before += sums[w];
      total += sums[w];
    }
  }
};

// Prunes what is below the key, and of what equals it the first `ties` in the order of elements.
__global__ void MaskWithTiesKernel(ScoreTask task, uint64_t key, int64_t ties, const uint32_t* counts, uint8_t* mask) {
  const Piece piece(task);
  // Ties in the pieces before; every thread adds the one count that it holds.
  static_assert(kPieces == kThreads);
  int64_t rank = BlockReduce<kThreads>(threadIdx.x < blockIdx.x ? counts[threadIdx.x] : 0u, Sum());
  for (int64_t first = piece.begin; first < piece.end; first += kThreads) {
    const int64_t byte = first + threadIdx.x;
    const int64_t end = byte < piece.end ? task.size : 0;  // no elements behind the piece
    const KeyByte keys(task, byte * 8, end);
    uint32_t equal = 0, above = 0;
    TY_UNROLL
    for (int i = 0; i < 8; ++i) {
      if (i >= keys.count()) continue;
      equal |= keys.key(i) == key ? 1u << i : 0u;
      above |= keys.key(i) > key ? 1u << i : 0u;
    }
    const BlockScan scan(static_cast<uint32_t>(__popc(equal)));
    int64_t own = rank + scan.before;
    uint32_t bits = above;
    TY_UNROLL
    for (int i = 0; i < 8; ++i) {
      if ((equal >> i & 1) == 0) continue;
      if (own >= ties) bits |= 1u << i;
      ++own;
    }
    rank += scan.total;
    if (byte < piece.end) mask[byte] = static_cast<uint8_t>(bits);
  }
}

// Whether `own` at i is among the kept of its group: at least `pruned` keys are lower.
struct GroupRank {
  uint64_t own;
  int at;
  int lower = 0;

  __device__ void Meet(uint64_t other, int j) { lower += other < own || (other == own && j < at) ? 1 : 0; }
};

// Groups of 2, 4 or 8 elements lie in one byte of the mask each.
template <int kGroup>
__global__ void GroupsKernel(ScoreTask task, int pruned, uint8_t* mask) {
  for (int64_t byte = GlobalThread(); byte * 8 < task.size; byte += GlobalThreads()) {
    const KeyByte keys(task, byte * 8, task.size);
    uint32_t bits = 0;
    TY_UNROLL
    for (int i = 0; i < 8; ++i) {
      GroupRank rank = {keys.key(i), i};
      TY_UNROLL
      for (int j = i / kGroup * kGroup; j < i / kGroup * kGroup + kGroup; ++j) rank.Meet(keys.key(j), j);
      bits |= i < keys.count() && rank.lower >= pruned ? 1u << i : 0u;
    }
    mask[byte] = static_cast<uint8_t>(bits);
  }
}

// Other groups: each element looks at its whole group.
__global__ void AnyGroupsKernel(ScoreTask task, int group, int pruned, uint8_t* mask) {
  const auto key_at = [&](int64_t i) { return KeyQuad(task, QuadPlace(i, i + 1, false)).key[0]; };
  for (int64_t byte = GlobalThread(); byte * 8 < task.size; byte += GlobalThreads()) {
    uint32_t bits = 0;
    for (int i = 0; i < 8; ++i) {
      const int64_t element = byte * 8 + i;
      if (element >= task.size) break;
      const int at = static_cast<int>(element % group);
      GroupRank rank = {key_at(element), at};
      for (int j = 0; j < group; ++j) rank.Meet(key_at(element - at + j), j);
      bits |= rank.lower >= pruned ? 1u << i : 0u;
    }
    mask[byte] = static_cast<uint8_t>(bits);
  }
}

}  // namespace

void PruneHistogramCuda(const PruneHistogramArgs& args, Stream& stream) {
  const ScoreTask task(args.score);
  uint32_t* const counts = args.counts.as<uint32_t>();
  Launch(stream, {.threads = 256}, ClearKernel, counts, int64_t{256});
  if (task.size == 0) return;
  // A table of counts a block costs as much as some elements: each thread takes several quads.
  Launch(stream, ElementwiseGrid(task.size, 32), HistogramKernel, task, args.digit.prefix, args.digit.shift, counts);
}

void PruneEqualCuda(const PruneEqualArgs& args, Stream& stream) {
  const ScoreTask task(args.score);
  uint32_t* const count = args.count.as<uint32_t>();
  Launch(stream, {.threads = 32}, ClearKernel, count, int64_t{1});
  if (task.size > 0) Launch(stream, ElementwiseGrid(task.size, 4), EqualKernel, task, args.key, count);
}

void PruneMaskCuda(const PruneMaskArgs& args, Stream& stream) {
  const ScoreTask task(args.score);
  uint8_t* const mask = args.mask.as<uint8_t>();
  if (task.size == 0) return;
  if (args.threshold.ties == kAllTies || args.threshold.ties == 0) {
    Launch(stream, ElementwiseGrid(task.size, 8), MaskKernel, task, FirstKeptKey(args.threshold), mask);
    return;
  }
  const Grid grid = {.blocks = kPieces, .threads = kThreads};
  uint32_t* const counts = args.counts.as<uint32_t>();
  Launch(stream, grid, TiesOfPiecesKernel, task, args.threshold.key, counts);
  Launch(stream, grid, MaskWithTiesKernel, task, args.threshold.key, args.threshold.ties, counts, mask);
}

void PruneGroupsCuda(const PruneGroupsArgs& args, Stream& stream) {
  const ScoreTask task(args.score);
  if (task.size == 0) return;
  const Grid grid = ElementwiseGrid(task.size, 8);
  const int pruned = args.group - args.keep;
  uint8_t* const mask = args.mask.as<uint8_t>();
  switch (args.group) {
    case 2:
      return Launch(stream, grid, GroupsKernel<2>, task, pruned, mask);
    case 4:
      return Launch(stream, grid, GroupsKernel<4>, task, pruned, mask);
    case 8:
      return Launch(stream, grid, GroupsKernel<8>, task, pruned, mask);
    default:
      return Launch(stream, grid, AnyGroupsKernel, task, args.group, pruned, mask);
  }
}

}  // namespace trainyard::kernels::internal
