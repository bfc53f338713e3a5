// One block transforms a few sequences: their numbers stay in shared memory, side by side, from the first load to the
// last store, so that the matrix is read and written once.
#include <algorithm>

#include "kernels/core/dispatch.h"
#include "kernels/core/launch.h"
#include "kernels/transform/dct_formula.h"
#include "kernels/transform/dct_internal.h"

namespace trainyard::kernels::internal {
namespace {

template <typename T>
__global__ void DctBasisKernel(T* basis, int64_t n) {
  for (int64_t at = GlobalThread(); at < n * n; at += GlobalThreads()) {
    basis[at] = FromFloat<T>(static_cast<float>(DctBasisValue(at / n, at % n, n)));
  }
}

using Complex = ComplexOf<float>;

struct Pass {
  int factor, groups, stride;
  const float *twiddles, *roots;
};

// What a kernel needs of a DctPlan, by value.
struct Plan {
  static constexpr int kMaxPasses = 24;  // of factors 4, one 2 and odd ones: enough for lengths up to 2^31
  int n, length, pass_count;
  Pass passes[kMaxPasses];
  const float *output_factors, *split_factors;
};

// A block's sequences begin `sequence_stride` apart in x and y; an element follows another at `element_stride`.
struct Lines {
  int64_t count, sequence_stride, element_stride;
  int shift;            // 2^shift sequences a block
  bool elements_first;  // which of the two neighbouring threads follow in x and y
};

// Element `u` of a block's elements_a_sequence x sequences, as memory likes it.
struct Place {
  int sequence, element;
};
__device__ inline Place PlaceOf(int u, int elements_a_sequence, const Lines& lines) {
  if (lines.elements_first) return {u / elements_a_sequence, u % elements_a_sequence};
  return {u & ((1 << lines.shift) - 1), u >> lines.shift};
}

// Element e of sequence q is buffer[e * 2^shift + q].
template <typename X>
__device__ inline void Load(const X* x, const Plan& plan, const Lines& lines, int present, Complex* buffer) {
  const int sequences = 1 << lines.shift;
  float* const floats = reinterpret_cast<float*>(buffer);
  for (int u = threadIdx.x; u < plan.n * sequences; u += blockDim.x) {
    const Place place = PlaceOf(u, plan.n, lines);
    const float value = place.sequence < present
                            ? ToFloat(x[place.sequence * lines.sequence_stride + place.element * lines.element_stride])
                            : 0.0f;
    const int to = static_cast<int>(Reordered(place.element, plan.n));
    if (plan.n % 2 != 0) {
      buffer[(to << lines.shift) + place.sequence] = {value, 0.0f};
    } else {  // two neighbours of the new order are one complex number
      floats[2 * (((to / 2) << lines.shift) + place.sequence) + to % 2] = value;
    }
  }
}

template <int kFactor>
__device__ inline void RunPass(const Pass& pass, int shift, const Complex* a, Complex* b) {
  const int64_t s = int64_t{pass.stride} << shift;
  const int64_t apart = s * pass.groups;
  for (int64_t u = threadIdx.x; u < apart; u += blockDim.x) {
    const int p = static_cast<int>(u >> shift) / pass.stride;
    const float* w = pass.twiddles + 2 * (kFactor - 1) * p;
    Complex* const to = b + u + s * (kFactor - 1) * p;
    if constexpr (kFactor == 2) {
      ButterflyOf2(a + u, apart, w, to, s);
    } else if constexpr (kFactor == 4) {
      ButterflyOf4(a + u, apart, w, to, s);
    } else {
      PairOf<float> pairs[kFactor / 2];
      ButterflyOfOdd(kFactor, a + u, apart, pass.roots, w, pairs, to, s);
    }
  }
}

// A large prime factor f: a thread makes two outputs of a butterfly (or the first one), from all its inputs.
__device__ inline void RunPassOfAny(const Pass& pass, int shift, const Complex* a, Complex* b) {
  const int64_t f = pass.factor;
  const int64_t s = int64_t{pass.stride} << shift;
  const int64_t apart = s * pass.groups;
  for (int64_t item = threadIdx.x; item < apart * (f / 2 + 1); item += blockDim.x) {
    const int64_t u = item % apart;
    const int64_t j = item / apart;
    const int p = static_cast<int>(u >> shift) / pass.stride;
    const Complex* const x = a + u;
    Complex* const to = b + u + s * (f - 1) * p;
    const auto pair = [=](int64_t i) -> PairOf<float> {
      return {x[i * apart] + x[(f - i) * apart], x[i * apart] - x[(f - i) * apart]};
    };
    if (j == 0) {
      Complex total = x[0];
      for (int64_t i = 1; i <= f / 2; ++i) total = total + pair(i).sum;
      to[0] = total;
    } else {
      OutputsOfOdd(f, j, pass.roots, x[0], pair, pass.twiddles + 2 * (f - 1) * p, to, s);
    }
  }
}

__device__ inline void Store(const Complex* spectrum, const Plan& plan, const Lines& lines, int present, float* y) {
  const bool is_even = plan.n % 2 == 0;
  const int half = plan.n / 2;
  const int elements = is_even ? half + 1 : plan.n;
  for (int u = threadIdx.x; u < elements << lines.shift; u += blockDim.x) {
    const Place place = PlaceOf(u, elements, lines);
    if (place.sequence >= present) continue;
    const int k = place.element;
    float* const to = y + place.sequence * lines.sequence_stride;
    const auto at = [&](int e) { return spectrum[(e << lines.shift) + place.sequence]; };
    if (!is_even) {
      to[k * lines.element_stride] = DctOutput(at(k), plan.output_factors + 2 * k);
      continue;
    }
    const Complex v = Untangled(at(k == half ? 0 : k), at(k == 0 ? 0 : half - k), plan.split_factors + 2 * k);
    to[k * lines.element_stride] = DctOutput(v, plan.output_factors + 2 * k);
    if (k > 0 && k < half) {
      to[(plan.n - k) * lines.element_stride] = DctOutputOfConjugate(v, plan.output_factors + 2 * (plan.n - k));
    }
  }
}

// memory: null where the buffers are in shared memory, else two buffers a block.
template <typename X, bool kInShared>
__global__ void DctKernel(const X* x, float* y, Plan plan, Lines lines, Complex* memory) {
  const int64_t buffer = int64_t{plan.length} << lines.shift;
  Complex* const first = kInShared ? SharedMemory<Complex>() : memory + 2 * buffer * blockIdx.x;
  const int sequences = 1 << lines.shift;
  for (int64_t task = blockIdx.x; task * sequences < lines.count; task += gridDim.x) {
    const int64_t begin = task * sequences;
    const int present = lines.count - begin < sequences ? static_cast<int>(lines.count - begin) : sequences;
    Complex* a = first;
    Complex* b = first + buffer;
    __syncthreads();  // the last task's spectrum has been read
    Load(x + begin * lines.sequence_stride, plan, lines, present, a);
    __syncthreads();
    for (int i = 0; i < plan.pass_count; ++i) {
      const Pass& pass = plan.passes[i];
      switch (pass.factor) {
        case 2:
          RunPass<2>(pass, lines.shift, a, b);
          break;
        case 3:
          RunPass<3>(pass, lines.shift, a, b);
          break;
        case 4:
          RunPass<4>(pass, lines.shift, a, b);
          break;
        case 5:
          RunPass<5>(pass, lines.shift, a, b);
          break;
        case 7:
          RunPass<7>(pass, lines.shift, a, b);
          break;
        default:
          RunPassOfAny(pass, lines.shift, a, b);
      }
      __syncthreads();
      Complex* const result = b;
      b = a;
      a = result;
    }
    Store(a, plan, lines, present, y + begin * lines.sequence_stride);
  }
}

Plan PlanOf(const DctPlan& plan) {
  TY_CHECK_LE(plan.n(), int64_t{1} << 26);  // offsets inside a block's buffers are ints
  TY_CHECK_LE(plan.passes().size(), static_cast<size_t>(Plan::kMaxPasses));
  Plan out = {};
  out.n = static_cast<int>(plan.n());
  out.length = static_cast<int>(plan.fft_length());
  for (const DctPlan::Pass& pass : plan.passes()) {
    out.passes[out.pass_count++] = {static_cast<int>(pass.factor), static_cast<int>(pass.groups),
                                    static_cast<int>(pass.stride), pass.twiddles, pass.roots};
  }
  out.output_factors = plan.output_factors();
  out.split_factors = plan.split_factors();
  return out;
}

constexpr int64_t kSharedBytes = 96 << 10;  // what every GPU that we build for gives a block

}  // namespace

void DctBasisCuda(const DctBasisArgs& args, Stream& stream) {
  const int64_t n = args.basis.dim(0);
  if (n == 0) return;
  DispatchFloat(args.basis.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    Launch(stream, ElementwiseGrid(n * n), DctBasisKernel<T>, args.basis.as<T>(), n);
  });
}

void DctFftCuda(const DctFftArgs& args, Stream& stream) {
  if (args.x.size() == 0) return;
  const DctPlan& plan = *args.plan;
  const int64_t cols = args.x.dim(1);
  const bool of_rows = args.axis == 1;
  Lines lines = {.count = args.x.dim(of_rows ? 0 : 1),
                 .sequence_stride = of_rows ? cols : 1,
                 .element_stride = of_rows ? 1 : cols,
                 .shift = 0,
                 .elements_first = of_rows};
  // Of columns, eight are a sector of memory; of rows, enough for a block to have work.
  constexpr int kMaxShift = 3;
  const int64_t pair_bytes = 2 * static_cast<int64_t>(sizeof(Complex)) * plan.fft_length();
  while (lines.shift < kMaxShift && (!of_rows || plan.fft_length() << lines.shift < 1024)) ++lines.shift;
  int in_shared = lines.shift;
  while (in_shared > (of_rows ? 0 : 1) && pair_bytes << in_shared > kSharedBytes) --in_shared;
  const bool fits = pair_bytes << in_shared <= kSharedBytes;
  if (fits) lines.shift = in_shared;

  const int64_t tasks = (lines.count + (int64_t{1} << lines.shift) - 1) >> lines.shift;
  Grid grid = RowGrid(tasks, plan.fft_length() << lines.shift < 4096 ? 256 : 512);
  Complex* memory = nullptr;
  if (fits) {
    grid.shared_bytes = pair_bytes << lines.shift;
  } else {  // a thread's bytes of the CPU's are at least two blocks' here
    memory = static_cast<Complex*>(args.workspace.data());
    grid.blocks = std::min(grid.blocks, args.workspace.bytes() / (pair_bytes << lines.shift));
  }
  DispatchFloat(args.x.dtype(), [&](auto tag) {
    using X = typename decltype(tag)::type;
    Launch(stream, grid, fits ? DctKernel<X, true> : DctKernel<X, false>, args.x.as<X>(), args.y.as<float>(),
           PlanOf(plan), lines, memory);
  });
}

}  // namespace trainyard::kernels::internal
