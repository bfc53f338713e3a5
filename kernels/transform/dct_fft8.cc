// Stockham's self-sorting FFT (decimation in frequency), eight transforms side by side so that every operation is on a
// whole vector and no lane ever needs another's value. A pass of factor f over what remains of length f m:
//
//   y[q + s (f p + j)] = w^(p j) sum_i x[q + s (p + m i)] e^(-2 pi i j / f),  w = e^(-2 pi / (f m)),  q < s, p < m
//
// with s the product of the factors before.
#include "kernels/transform/dct_internal.h"

namespace trainyard::kernels::internal {
namespace {

TY_INLINE Complex8 operator+(const Complex8& a, const Complex8& b) {
  return {a.re + b.re, a.im + b.im};
}
TY_INLINE Complex8 operator-(const Complex8& a, const Complex8& b) {
  return {a.re - b.re, a.im - b.im};
}
// -i a.
TY_INLINE Complex8 Turned(const Complex8& a) {
  return {a.im, -a.re};
}
// Times w[0] + i w[1].
TY_INLINE Complex8 Times(const Complex8& a, const float* w) {
  return {a.re * w[0] - a.im * w[1], a.re * w[1] + a.im * w[0]};
}

void PassOf2(const DctPlan::Pass& pass, const Complex8* x, Complex8* y) {
  const int64_t s = pass.stride;
  const int64_t apart = s * pass.groups;
  for (int64_t p = 0; p < pass.groups; ++p) {
    const float* w = pass.twiddles.data() + 2 * p;
    for (int64_t q = 0; q < s; ++q) {
      const Complex8 a = x[q + s * p];
      const Complex8 b = x[q + s * p + apart];
      y[q + s * 2 * p] = a + b;
      y[q + s * (2 * p + 1)] = Times(a - b, w);
    }
  }
}

void PassOf4(const DctPlan::Pass& pass, const Complex8* x, Complex8* y) {
  const int64_t s = pass.stride;
  const int64_t apart = s * pass.groups;
  for (int64_t p = 0; p < pass.groups; ++p) {
    const float* w = pass.twiddles.data() + 6 * p;
    for (int64_t q = 0; q < s; ++q) {
      const Complex8* from = x + q + s * p;
      const Complex8 even_sum = from[0] + from[2 * apart];
      const Complex8 even_difference = from[0] - from[2 * apart];
      const Complex8 odd_sum = from[apart] + from[3 * apart];
      const Complex8 odd_turned = Turned(from[apart] - from[3 * apart]);
      Complex8* to = y + q + s * 4 * p;
      to[0] = even_sum + odd_sum;
      to[s] = Times(even_difference + odd_turned, w);
      to[2 * s] = Times(even_sum - odd_sum, w + 2);
      to[3 * s] = Times(even_difference - odd_turned, w + 4);
    }
  }
}

// Any odd factor. Inputs i and f - i meet the same cosine and opposite sines, so their sums and differences, kept in
// `pairs` (f - 1 elements), halve the products; outputs j and f - j share theirs.
template <int kFactor>
TY_INLINE void PassOfOdd(const DctPlan::Pass& pass, const Complex8* x, Complex8* y, Complex8* pairs) {
  const int64_t f = kFactor > 0 ? kFactor : pass.factor;
  const int64_t half = f / 2;
  const int64_t s = pass.stride;
  const int64_t apart = s * pass.groups;
  const float* roots = pass.roots.data();
  for (int64_t p = 0; p < pass.groups; ++p) {
    const float* w = pass.twiddles.data() + 2 * (f - 1) * p;
    for (int64_t q = 0; q < s; ++q) {
      const Complex8* from = x + q + s * p;
      Complex8* to = y + q + s * f * p;
      const Complex8 first = from[0];
      Complex8 total = first;
      for (int64_t i = 1; i <= half; ++i) {
        pairs[2 * i - 2] = from[i * apart] + from[(f - i) * apart];
        pairs[2 * i - 1] = from[i * apart] - from[(f - i) * apart];
        total = total + pairs[2 * i - 2];
      }
      to[0] = total;
      for (int64_t j = 1; j <= half; ++j) {
        Complex8 even = first;
        Complex8 odd = {};
        int64_t angle = 0;
        for (int64_t i = 1; i <= half; ++i) {
          angle += j;
          if (angle >= f) angle -= f;
          even.re += roots[2 * angle] * pairs[2 * i - 2].re;
          even.im += roots[2 * angle] * pairs[2 * i - 2].im;
          odd.re += roots[2 * angle + 1] * pairs[2 * i - 1].re;
          odd.im += roots[2 * angle + 1] * pairs[2 * i - 1].im;
        }
        const Complex8 turned = Turned(odd);
        to[j * s] = Times(even + turned, w + 2 * (j - 1));
        to[(f - j) * s] = Times(even - turned, w + 2 * (f - j - 1));
      }
    }
  }
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
  for (const DctPlan::Pass& pass : plan.passes()) {
    switch (pass.factor) {
      case 2:
        PassOf2(pass, a, b);
        break;
      case 3:
        PassOfOdd<3>(pass, a, b, scratch);
        break;
      case 4:
        PassOf4(pass, a, b);
        break;
      case 5:
        PassOfOdd<5>(pass, a, b, scratch);
        break;
      case 7:
        PassOfOdd<7>(pass, a, b, scratch);
        break;
      default:
        PassOfOdd<0>(pass, a, b, scratch);
    }
    Complex8* const result = b;
    b = a;
    a = result;
  }
  return a;
}

}  // namespace trainyard::kernels::internal
