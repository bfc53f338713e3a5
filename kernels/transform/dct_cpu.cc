#include <algorithm>
#include <atomic>

#include "kernels/core/dispatch.h"
#include "kernels/transform/dct_fft8.h"
#include "kernels/transform/dct_internal.h"

namespace trainyard::kernels::internal {
namespace {

constexpr int64_t kTaskSequences = 2 * kVectorLanes;

// Where element i of eight sequences goes. For even n two neighbours of the new order are one complex number, in which
// case a Complex8 is two slots.
class Slots {
 public:
  Slots(const DctPlan& plan, Complex8* values) : n_(plan.n()), values_(values) {
    if (n_ % 2 != 0) {
      for (int64_t i = 0; i < n_; ++i) values_[i].im = Vector8{};
    }
  }
  TY_INLINE Vector8& of(int64_t i) const {
    const int64_t at = Reordered(i, n_);
    if (n_ % 2 != 0) return values_[at].re;
    return at % 2 == 0 ? values_[at / 2].re : values_[at / 2].im;
  }

 private:
  int64_t n_;
  Complex8* values_;
};

// Up to eight neighbouring rows; in place of absent ones the first is loaded again, and nothing is stored.
template <typename X>
void LoadRows(const X* x, int64_t present, int64_t n, const Slots& slots) {
  const X* row[kVectorLanes];
  for (int64_t lane = 0; lane < kVectorLanes; ++lane) row[lane] = x + (lane < present ? lane * n : 0);
  int64_t i = 0;
  for (; i + kVectorLanes <= n; i += kVectorLanes) {
    Vector8 block[kVectorLanes];
    for (int64_t lane = 0; lane < kVectorLanes; ++lane) block[lane] = Load8(row[lane] + i);
    Transpose8(block);
    for (int64_t k = 0; k < kVectorLanes; ++k) slots.of(i + k) = block[k];
  }
  for (; i < n; ++i) {
    Vector8 v;
    for (int64_t lane = 0; lane < kVectorLanes; ++lane) v[lane] = ToFloat(row[lane][i]);
    slots.of(i) = v;
  }
}

void StoreRows(const Vector8* values, int64_t present, int64_t n, float* y) {
  int64_t i = 0;
  for (; i + kVectorLanes <= n; i += kVectorLanes) {
    Vector8 block[kVectorLanes];
    for (int64_t k = 0; k < kVectorLanes; ++k) block[k] = values[i + k];
    Transpose8(block);
    for (int64_t lane = 0; lane < present; ++lane) Store8(block[lane], y + lane * n + i);
  }
  for (; i < n; ++i) {
    for (int64_t lane = 0; lane < present; ++lane) y[lane * n + i] = values[i][lane];
  }
}

// Of up to 16 columns, the first eight and the others: neighbours share cache lines, of which columns touch many.
template <typename X>
void LoadColumns(const X* x, int64_t cols, int64_t present, int64_t n, const Slots* slots) {
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t half = 0; half * kVectorLanes < present; ++half) {
      const X* from = x + i * cols + half * kVectorLanes;
      const int64_t count = present - half * kVectorLanes;
      if (count >= kVectorLanes) {
        slots[half].of(i) = Load8(from);
      } else {
        Vector8 v = {};
        for (int64_t lane = 0; lane < count; ++lane) v[lane] = ToFloat(from[lane]);
        slots[half].of(i) = v;
      }
    }
  }
}

void StoreColumns(const Vector8* const* values, int64_t cols, int64_t present, int64_t n, float* y) {
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t half = 0; half * kVectorLanes < present; ++half) {
      float* to = y + i * cols + half * kVectorLanes;
      const int64_t count = present - half * kVectorLanes;
      if (count >= kVectorLanes) {
        Store8(values[half][i], to);
      } else {
        for (int64_t lane = 0; lane < count; ++lane) to[lane] = values[half][i][lane];
      }
    }
  }
}

// The outputs from the spectrum of the reordered sequence.
void OutputsOfOddLength(const DctPlan& plan, const Complex8* spectrum, Vector8* outputs) {
  for (int64_t k = 0; k < plan.n(); ++k) outputs[k] = DctOutput(spectrum[k], plan.output_factors() + 2 * k);
}

void OutputsOfEvenLength(const DctPlan& plan, const Complex8* spectrum, Vector8* outputs) {
  const int64_t n = plan.n();
  const int64_t half = n / 2;
  for (int64_t k = 0; k <= half; ++k) {
    const Complex8 v =
        Untangled(spectrum[k == half ? 0 : k], spectrum[k == 0 ? 0 : half - k], plan.split_factors() + 2 * k);
    outputs[k] = DctOutput(v, plan.output_factors() + 2 * k);
    if (k > 0 && k < half) outputs[n - k] = DctOutputOfConjugate(v, plan.output_factors() + 2 * (n - k));
  }
}

// The outputs of eight loaded sequences: where in the buffers a and b they are.
const Vector8* TransformLoaded(const DctPlan& plan, Complex8* a, Complex8* b, Complex8* scratch) {
  const Complex8* spectrum = Fft8(plan, a, b, scratch);
  // The buffer that holds no spectrum has room for n vectors.
  Vector8* outputs = &(spectrum == a ? b : a)->re;
  if (plan.n() % 2 == 0) {
    OutputsOfEvenLength(plan, spectrum, outputs);
  } else {
    OutputsOfOddLength(plan, spectrum, outputs);
  }
  return outputs;
}

template <typename X>
void TransformRows(const DctFftArgs& args, int64_t first, Complex8* buffers) {
  const DctPlan& plan = *args.plan;
  const int64_t n = plan.n();
  Complex8* b = buffers + plan.fft_length();
  Complex8* scratch = b + plan.fft_length();
  const int64_t last = std::min(first + kTaskSequences, args.x.dim(0));
  for (; first < last; first += kVectorLanes) {
    const int64_t present = std::min(kVectorLanes, last - first);
    LoadRows(args.x.as<X>() + first * n, present, n, Slots(plan, buffers));
    StoreRows(TransformLoaded(plan, buffers, b, scratch), present, n, args.y.as<float>() + first * n);
  }
}

template <typename X>
void TransformColumns(const DctFftArgs& args, int64_t first, Complex8* buffers) {
  const DctPlan& plan = *args.plan;
  const int64_t length = plan.fft_length();
  const int64_t cols = args.x.dim(1);
  const int64_t present = std::min(kTaskSequences, cols - first);
  const Slots slots[] = {Slots(plan, buffers), Slots(plan, buffers + 2 * length)};
  LoadColumns(args.x.as<X>() + first, cols, present, plan.n(), slots);
  const Vector8* outputs[2] = {};
  for (int64_t half = 0; half * kVectorLanes < present; ++half) {
    Complex8* a = buffers + half * 2 * length;
    outputs[half] = TransformLoaded(plan, a, a + length, buffers + 4 * length);
  }
  StoreColumns(outputs, cols, present, plan.n(), args.y.as<float>() + first);
}

}  // namespace

void DctBasisCpu(const DctBasisArgs& args, Stream& stream) {
  const int64_t n = args.basis.dim(0);
  DispatchFloat(args.basis.dtype(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    T* basis = args.basis.as<T>();
    stream.pool().ParallelFor(n, 16, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        for (int64_t j = 0; j < n; ++j) {
          basis[i * n + j] = FromFloat<T>(static_cast<float>(DctBasisValue(i, j, n)));
        }
      }
    });
  });
}

void DctFftCpu(const DctFftArgs& args, Stream& stream) {
  const int64_t sequences = args.x.dim(args.axis == 1 ? 0 : 1);
  const int64_t tasks = (sequences + kTaskSequences - 1) / kTaskSequences;
  const int64_t thread_bytes = args.plan->thread_bytes();
  const int64_t workers =
      std::min({tasks, static_cast<int64_t>(stream.threads()), args.workspace.bytes() / thread_bytes});
  std::atomic<int64_t> next{0};
  DispatchFloat(args.x.dtype(), [&](auto tag) {
    using X = typename decltype(tag)::type;
    stream.pool().ParallelFor(workers, 1, [&](int64_t begin, int64_t end) {
      for (int64_t worker = begin; worker < end; ++worker) {
        char* mine = static_cast<char*>(args.workspace.data()) + worker * thread_bytes;
        for (int64_t task = next++; task < tasks; task = next++) {
          Complex8* buffers = reinterpret_cast<Complex8*>(mine);
          if (args.axis == 1) {
            TransformRows<X>(args, task * kTaskSequences, buffers);
          } else {
            TransformColumns<X>(args, task * kTaskSequences, buffers);
          }
        }
      }
    });
  });
}

}  // namespace trainyard::kernels::internal
