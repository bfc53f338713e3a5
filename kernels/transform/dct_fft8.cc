// The passes of the FFT (dct_formula.h), eight transforms side by side so that every operation is on a whole vector and
// no lane ever needs another's value.
#include "kernels/transform/dct_fft8.h"

namespace trainyard::kernels::internal {
namespace {

// Calls butterfly(inputs, outputs, twiddles) for each p and q.
template <typename Butterfly>
TY_INLINE void ForButterflies(const DctPlan::Pass& pass, const Complex8* x, Complex8* y, const Butterfly& butterfly) {
  const int64_t s = pass.stride;
  for (int64_t p = 0; p < pass.groups; ++p) {
    const float* w = pass.twiddles + 2 * (pass.factor - 1) * p;
    for (int64_t q = 0; q < s; ++q) butterfly(x + q + s * p, y + q + s * pass.factor * p, w);
  }
}

template <int kFactor>
void PassOf(const DctPlan::Pass& pass, const Complex8* x, Complex8* y, PairOf<Vector8>* pairs) {
  const int64_t f = kFactor > 0 ? kFactor : pass.factor;
  const int64_t s = pass.stride;
  const int64_t apart = s * pass.groups;
  ForButterflies(pass, x, y, [&](const Complex8* from, Complex8* to, const float* w) TY_INLINE_LAMBDA {
    if constexpr (kFactor == 2) {
      ButterflyOf2(from, apart, w, to, s);
    } else if constexpr (kFactor == 4) {
      ButterflyOf4(from, apart, w, to, s);
    } else {
      ButterflyOfOdd(f, from, apart, pass.roots, w, pairs, to, s);
    }
  });
}

}  // namespace

int64_t ScratchLength(const DctPlan& plan) {
  int64_t length = 0;
  for (const DctPlan::Pass& pass : plan.passes()) {
    if (pass.factor > length) length = pass.factor;
  }
  return length;
}

Complex8* Fft8(const DctPlan& plan, Complex8* a, Complex8* b, Complex8* scratch) {
  PairOf<Vector8>* const pairs = reinterpret_cast<PairOf<Vector8>*>(scratch);
  for (const DctPlan::Pass& pass : plan.passes()) {
    switch (pass.factor) {
      case 2:
        PassOf<2>(pass, a, b, pairs);
        break;
      case 3:
        PassOf<3>(pass, a, b, pairs);
        break;
      case 4:
        PassOf<4>(pass, a, b, pairs);
        break;
      case 5:
        PassOf<5>(pass, a, b, pairs);
        break;
      case 7:
        PassOf<7>(pass, a, b, pairs);
        break;
      default:
        PassOf<0>(pass, a, b, pairs);
    }
    Complex8* const result = b;
    b = a;
    a = result;
  }
  return a;
}

}  // namespace trainyard::kernels::internal
