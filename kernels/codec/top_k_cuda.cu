#include "kernels/codec/code.h"
#include "kernels/codec/top_k_internal.h"
#include "kernels/core/block_reduce.h"

namespace trainyard::kernels::internal {
namespace {

constexpr int kThreads = 256;
constexpr int kBlocks = 256;  // of a selection; block b looks at the b-th run of the vector
constexpr int kBins = 2048;
constexpr uint32_t kQuietNan = 0x7FC00000;

// In args.workspace. The selection goes as in magnitude_threshold.cc, digit by digit from the top.
struct Selection {
  uint32_t magnitude;       // the threshold, as far as it is known
  uint32_t has_bad;         // a value is not finite
  unsigned long long ties;  // how many of what equals the threshold are among the k
  uint32_t bins[kBins];
  uint32_t greater[kBlocks];  // by block: how many it has; then how many those before it have
  uint32_t equal[kBlocks];
};
static_assert(sizeof(Selection) <= kTopKWorkspaceBytes);

struct Run {
  int64_t begin, end;
};
__device__ inline Run RunOf(int64_t n, int64_t run_length) {
  const int64_t begin = blockIdx.x * run_length;
  return {begin < n ? begin : n, begin + run_length < n ? begin + run_length : n};
}

__global__ void StartKernel(Selection* selection, int64_t k) {
  for (int bin = static_cast<int>(threadIdx.x); bin < kBins; bin += kThreads) selection->bins[bin] = 0;
  if (threadIdx.x == 0) {
    selection->magnitude = 0;
    selection->has_bad = 0;
    selection->ties = static_cast<unsigned long long>(k);
  }
}

__global__ void CountDigitsKernel(const float* x, int64_t n, int shift, int bits, Selection* selection) {
  __shared__ uint32_t bins[kBins];
  for (int bin = static_cast<int>(threadIdx.x); bin < kBins; bin += kThreads) bins[bin] = 0;
  __syncthreads();
  const uint32_t threshold = selection->magnitude;
  const uint32_t mask = (1u << bits) - 1;
  const int above = shift + bits;
  for (int64_t i = GlobalThread(); i < n; i += GlobalThreads()) {
    const uint32_t magnitude = FloatMagnitudeBits(x[i]);
    if (magnitude >> above == threshold >> above) atomicAdd(&bins[(magnitude >> shift) & mask], 1u);
  }
  __syncthreads();
  for (int bin = static_cast<int>(threadIdx.x); bin < kBins; bin += kThreads) {
    if (bins[bin] != 0) atomicAdd(&selection->bins[bin], bins[bin]);
  }
}

// One block. Leaves the bins empty for the next digit.
__global__ void ChooseDigitKernel(int shift, Selection* selection) {
  constexpr int kBinsAThread = kBins / kThreads;
  __shared__ uint32_t bins[kBins];
  __shared__ unsigned long long sums[kThreads];
  unsigned long long sum = 0;
  for (int j = 0; j < kBinsAThread; ++j) {
    const int bin = static_cast<int>(threadIdx.x) * kBinsAThread + j;
    bins[bin] = selection->bins[bin];
    selection->bins[bin] = 0;
    sum += bins[bin];
  }
  sums[threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.x != 0) return;
  unsigned long long ties = selection->ties;
  int group = kThreads - 1;
  while (group > 0 && sums[group] < ties) ties -= sums[group--];
  int bin = group * kBinsAThread + kBinsAThread - 1;
  while (bin > 0 && bins[bin] < ties) ties -= bins[bin--];
  selection->ties = ties;
  selection->magnitude |= static_cast<uint32_t>(bin) << shift;
}

// By all threads of a block: how many flags are set before the own one, and how many in all.
__device__ inline uint32_t CountBefore(bool flag, uint32_t* total) {
  __shared__ uint32_t of_warp[kThreads / 32];
  const unsigned ballot = __ballot_sync(0xFFFFFFFFu, flag ? 1 : 0);
  const int warp = static_cast<int>(threadIdx.x / 32), lane = static_cast<int>(threadIdx.x % 32);
  __syncthreads();  // the last call's counts have been read
  if (lane == 0) of_warp[warp] = static_cast<uint32_t>(__popc(ballot));
  __syncthreads();
  uint32_t before = static_cast<uint32_t>(__popc(ballot & ((1u << lane) - 1)));
  *total = 0;
  for (int w = 0; w < kThreads / 32; ++w) {
    if (w < warp) before += of_warp[w];
    *total += of_warp[w];
  }
  return before;
}

__global__ void CountRunsKernel(const float* x, int64_t n, int64_t run_length, Selection* selection) {
  const Run run = RunOf(n, run_length);
  const uint32_t threshold = selection->magnitude;
  uint32_t greater = 0, equal = 0, largest = 0;
  for (int64_t i = run.begin + threadIdx.x; i < run.end; i += kThreads) {
    const uint32_t magnitude = FloatMagnitudeBits(x[i]);
    greater += magnitude > threshold ? 1 : 0;
    equal += magnitude == threshold ? 1 : 0;
    largest = magnitude > largest ? magnitude : largest;
  }
  greater = BlockReduce<kThreads>(greater, Sum());
  equal = BlockReduce<kThreads>(equal, Sum());
  largest = BlockReduce<kThreads>(largest, Max());
  if (threadIdx.x != 0) return;
  selection->greater[blockIdx.x] = greater;
  selection->equal[blockIdx.x] = equal;
  if (largest >= kInfinityBits) atomicOr(&selection->has_bad, 1u);
}

// One block, a thread a run: counts become sums of those before.
__global__ void SumRunsKernel(int64_t runs, Selection* selection) {
  __shared__ uint32_t greater[kBlocks], equal[kBlocks];
  const int own = static_cast<int>(threadIdx.x);
  greater[own] = own < runs ? selection->greater[own] : 0;
  equal[own] = own < runs ? selection->equal[own] : 0;
  for (int step = 1; step < kBlocks; step *= 2) {
    __syncthreads();
    const uint32_t more_greater = own >= step ? greater[own - step] : 0;
    const uint32_t more_equal = own >= step ? equal[own - step] : 0;
    __syncthreads();
    greater[own] += more_greater;
    equal[own] += more_equal;
  }
  __syncthreads();
  selection->greater[own] = own == 0 ? 0 : greater[own - 1];
  selection->equal[own] = own == 0 ? 0 : equal[own - 1];
}

__device__ inline void StoreWord(uint32_t word, uint8_t* out) {
  if (reinterpret_cast<uintptr_t>(out) % 4 == 0) {
    *reinterpret_cast<uint32_t*>(out) = word;
    return;
  }
  for (int byte = 0; byte < 4; ++byte) out[byte] = static_cast<uint8_t>(word >> (8 * byte));
}
__device__ inline uint32_t LoadWord(const uint8_t* in) {
  if (reinterpret_cast<uintptr_t>(in) % 4 == 0) return *reinterpret_cast<const uint32_t*>(in);
  uint32_t word = 0;
  for (int byte = 0; byte < 4; ++byte) word |= static_cast<uint32_t>(in[byte]) << (8 * byte);
  return word;
}

// An element's place among the taken: those above the threshold before it, and of the ties before it those that count.
__global__ void TakeKernel(const float* x, int64_t n, int64_t run_length, int64_t k, const Selection* selection,
                           uint8_t* wire) {
  const Run run = RunOf(n, run_length);
  const uint32_t threshold = selection->magnitude;
  const uint64_t ties = selection->ties;
  uint64_t greater_before = selection->greater[blockIdx.x];
  uint64_t equal_before = selection->equal[blockIdx.x];
  for (int64_t first = run.begin; first < run.end; first += kThreads) {
    const int64_t i = first + threadIdx.x;
    const float value = i < run.end ? x[i] : 0.0f;
    const uint32_t magnitude = FloatMagnitudeBits(value);
    const bool is_greater = i < run.end && magnitude > threshold;
    const bool is_equal = i < run.end && magnitude == threshold;
    uint32_t greater_here, equal_here;
    const uint64_t greater = greater_before + CountBefore(is_greater, &greater_here);
    const uint64_t equal = equal_before + CountBefore(is_equal, &equal_here);
    if (is_greater || (is_equal && equal < ties)) {
      const int64_t place = static_cast<int64_t>(greater + (equal < ties ? equal : ties));
      const bool is_bad = place == 0 && selection->has_bad != 0;
      StoreWord(static_cast<uint32_t>(i), wire + 4 * place);
      StoreWord(is_bad ? kQuietNan : __builtin_bit_cast(uint32_t, value), wire + 4 * (k + place));
    }
    greater_before += greater_here;
    equal_before += equal_here;
  }
}

// Indices rise, so the last one is the largest: one beyond n is damage, and must not pass for a gradient.
__device__ inline bool IsBad(const uint8_t* wire, int64_t k, int64_t n) {
  return (LoadWord(wire + 4 * k) & 0x7FFFFFFF) > kInfinityBits || LoadWord(wire + 4 * (k - 1)) >= n;
}

__global__ void FillKernel(const uint8_t* wire, int64_t k, int64_t n, float* y) {
  const float fill = __builtin_bit_cast(float, IsBad(wire, k, n) ? kQuietNan : 0u);
  for (int64_t i = GlobalThread(); i < n; i += GlobalThreads()) y[i] = fill;
}

__global__ void ScatterKernel(const uint8_t* wire, int64_t k, int64_t n, float* y) {
  if (IsBad(wire, k, n)) return;
  for (int64_t i = GlobalThread(); i < k; i += GlobalThreads()) {
    const int64_t index = LoadWord(wire + 4 * i);
    if (index < n) y[index] = __builtin_bit_cast(float, LoadWord(wire + 4 * (k + i)));
  }
}

}  // namespace

void TopKEncodeCuda(const TopKEncodeArgs& args, Stream& stream) {
  if (args.k == 0) return;
  TY_CHECK_GE(args.workspace ? args.workspace.bytes() : 0, kTopKWorkspaceBytes);
  const float* const x = args.x.as<float>();
  const int64_t n = args.x.size();
  Selection* const selection = static_cast<Selection*>(args.workspace.data());
  const int64_t tiles = (n + kThreads - 1) / kThreads;
  const int64_t run_length = (tiles + kBlocks - 1) / kBlocks * kThreads;
  const int64_t runs = (n + run_length - 1) / run_length;
  const Grid one{.blocks = 1, .threads = kThreads}, all{.blocks = runs, .threads = kThreads};
  Launch(stream, one, StartKernel, selection, args.k);
  constexpr int kDigits[][2] = {{20, 11}, {9, 11}, {0, 9}};  // shift, bits; the sign bit is clear
  for (const auto& [shift, bits] : kDigits) {
    Launch(stream, all, CountDigitsKernel, x, n, shift, bits, selection);
    Launch(stream, one, ChooseDigitKernel, shift, selection);
  }
  Launch(stream, all, CountRunsKernel, x, n, run_length, selection);
  Launch(stream, one, SumRunsKernel, runs, selection);
  Launch(stream, all, TakeKernel, x, n, run_length, args.k, selection, args.wire.as<uint8_t>());
}

void TopKDecodeCuda(const TopKDecodeArgs& args, Stream& stream) {
  if (args.y.size() == 0) return;
  const uint8_t* const wire = args.wire.as<uint8_t>();
  Launch(stream, ElementwiseGrid(args.y.size()), FillKernel, wire, args.k, args.y.size(), args.y.as<float>());
  Launch(stream, ElementwiseGrid(args.k), ScatterKernel, wire, args.k, args.y.size(), args.y.as<float>());
}

}  // namespace trainyard::kernels::internal
