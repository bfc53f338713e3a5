// The arithmetic of the DCT and of Stockham's self-sorting FFT (decimation in frequency), for one sequence (Real:
// float) or for several side by side (Real: a vector of floats). A pass of factor f over what remains of length f m:
//
//   y[q + s (f p + j)] = w^(p j) sum_i x[q + s (p + m i)] e^(-2 pi i j / f),  w = e^(-2 pi / (f m)),  q < s, p < m
//
// with s the product of the factors before. In each butterfly below x points to x[q + s p], whose inputs are `apart` =
// s m from each other, y to y[q + s f p], whose outputs are s from each other, and w to the twiddles of p for j = 1,
// ...
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/core/simd.h"

namespace trainyard::kernels::internal {

// P[i,j] of dct.h, in double. The angle's whole turns are removed in integers.
TY_INLINE double DctBasisValue(int64_t i, int64_t j, int64_t n) {
  constexpr double kPi = 3.14159265358979323846;
  const double scale = std::sqrt((j == 0 ? 1.0 : 2.0) / static_cast<double>(n));
  const int64_t quarter_steps = j * (2 * i + 1) % (4 * n);  // the angle is this part of a whole turn
  const double angle = kPi * static_cast<double>(quarter_steps) / static_cast<double>(2 * n);
  return scale * std::cos(angle);
}

// Makhoul's order: the even-indexed elements ascending, then the odd-indexed ones descending.
TY_INLINE int64_t Reordered(int64_t i, int64_t n) {
  return i % 2 == 0 ? i / 2 : n - (i + 1) / 2;
}

template <typename Real>
struct ComplexOf {
  Real re, im;
};

template <typename Real>
TY_INLINE ComplexOf<Real> operator+(const ComplexOf<Real>& a, const ComplexOf<Real>& b) {
  return {a.re + b.re, a.im + b.im};
}
template <typename Real>
TY_INLINE ComplexOf<Real> operator-(const ComplexOf<Real>& a, const ComplexOf<Real>& b) {
  return {a.re - b.re, a.im - b.im};
}
// -i a.
template <typename Real>
TY_INLINE ComplexOf<Real> Turned(const ComplexOf<Real>& a) {
  return {a.im, -a.re};
}
// Times w[0] + i w[1].
template <typename Real>
TY_INLINE ComplexOf<Real> Times(const ComplexOf<Real>& a, const float* w) {
  return {a.re * w[0] - a.im * w[1], a.re * w[1] + a.im * w[0]};
}

template <typename Real>
TY_INLINE void ButterflyOf2(const ComplexOf<Real>* x, int64_t apart, const float* w, ComplexOf<Real>* y, int64_t s) {
  const ComplexOf<Real> a = x[0];
  const ComplexOf<Real> b = x[apart];
  y[0] = a + b;
  y[s] = Times(a - b, w);
}

template <typename Real>
TY_INLINE void ButterflyOf4(const ComplexOf<Real>* x, int64_t apart, const float* w, ComplexOf<Real>* y, int64_t s) {
  const ComplexOf<Real> even_sum = x[0] + x[2 * apart];
  const ComplexOf<Real> even_difference = x[0] - x[2 * apart];
  const ComplexOf<Real> odd_sum = x[apart] + x[3 * apart];
  const ComplexOf<Real> odd_turned = Turned(x[apart] - x[3 * apart]);
  y[0] = even_sum + odd_sum;
  y[s] = Times(even_difference + odd_turned, w);
  y[2 * s] = Times(even_sum - odd_sum, w + 2);
  y[3 * s] = Times(even_difference - odd_turned, w + 4);
}

// Outputs j and f - j of a butterfly of the odd factor f, 1 <= j <= f / 2: they share their products. Inputs i and f -
// i meet the same cosine and opposite sines; pair(i) is {sum, difference} of the two.
template <typename Real, typename Pair>
TY_INLINE void OutputsOfOdd(int64_t f, int64_t j, const float* roots, const ComplexOf<Real>& first, const Pair& pair,
                            const float* w, ComplexOf<Real>* y, int64_t s) {
  ComplexOf<Real> even = first;
  ComplexOf<Real> odd = {};
  int64_t angle = 0;
  for (int64_t i = 1; i <= f / 2; ++i) {
    angle += j;
    if (angle >= f) angle -= f;
    const auto [sum, difference] = pair(i);
    even.re += roots[2 * angle] * sum.re;
    even.im += roots[2 * angle] * sum.im;
    odd.re += roots[2 * angle + 1] * difference.re;
    odd.im += roots[2 * angle + 1] * difference.im;
  }
  const ComplexOf<Real> turned = Turned(odd);
  y[j * s] = Times(even + turned, w + 2 * (j - 1));
  y[(f - j) * s] = Times(even - turned, w + 2 * (f - j - 1));
}

template <typename Real>
struct PairOf {
  ComplexOf<Real> sum, difference;
};

// Any odd factor; `pairs` holds f / 2 pairs meanwhile.
template <typename Real>
TY_INLINE void ButterflyOfOdd(int64_t f, const ComplexOf<Real>* x, int64_t apart, const float* roots, const float* w,
                              PairOf<Real>* pairs, ComplexOf<Real>* y, int64_t s) {
  const ComplexOf<Real> first = x[0];
  ComplexOf<Real> total = first;
  for (int64_t i = 1; i <= f / 2; ++i) {
    const ComplexOf<Real> a = x[i * apart];
    const ComplexOf<Real> b = x[(f - i) * apart];
    pairs[i - 1] = {a + b, a - b};
    total = total + pairs[i - 1].sum;
  }
  y[0] = total;
  const auto pair = [pairs](int64_t i) TY_INLINE_LAMBDA -> const PairOf<Real>& { return pairs[i - 1]; };
  for (int64_t j = 1; j <= f / 2; ++j) OutputsOfOdd(f, j, roots, first, pair, w, y, s);
}

// For even n the spectrum Z is that of z_t = v_2t + i v_2t+1, of half the length M. With Z_k = p + i q and
// Z_(M-k) = u + i v (Z_M = Z_0) this is
//   2 V_k = (p + u) + i (q - v) + e^(-2 pi i k / n) ((q + v) - i (p - u)),   V_(n-k) = conj(V_k)
// split: (cos, sin) of 2 pi k / n.
template <typename Real>
TY_INLINE ComplexOf<Real> Untangled(const ComplexOf<Real>& here, const ComplexOf<Real>& there, const float* split) {
  const Real sum = here.im + there.im;
  const Real difference = here.re - there.re;
  return {(here.re + there.re) + (split[0] * sum - split[1] * difference),
          (here.im - there.im) - (split[0] * difference + split[1] * sum)};
}

// S_k = Re(V_k W_k), W_k = scale_k e^(-i pi k / (2n)); factor: (cos, sin) with the scale.
template <typename Real>
TY_INLINE Real DctOutput(const ComplexOf<Real>& v, const float* factor) {
  return factor[0] * v.re + factor[1] * v.im;
}
// The same with conj(V_k).
template <typename Real>
TY_INLINE Real DctOutputOfConjugate(const ComplexOf<Real>& v, const float* factor) {
  return factor[0] * v.re - factor[1] * v.im;
}

}  // namespace trainyard::kernels::internal
