#include "worker/optim/fixed_basis.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/check.h"
#include "kernels/core/dispatch.h"
#include "kernels/core/philox.h"

namespace trainyard::optim {
namespace {

using kernels::Stream;
using kernels::TensorView;
using Basis = spec::SubspaceOptions::Basis;
using Similarity = spec::SubspaceOptions::Similarity;

void FillDct2(const TensorView& vectors, Stream& stream) {
  DctBasis({.basis = vectors}, stream);
}

void FillDct3(const TensorView& vectors, Stream& stream) {
  DctBasis({.basis = vectors}, stream);
  const int64_t n = vectors.dim(0);
  kernels::WaitForDevice(stream);
  float* p = vectors.as<float>();
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < i; ++j) std::swap(p[i * n + j], p[j * n + i]);
  }
}

BasisCache::Fill FillOf(Basis basis) {
  switch (basis) {
    case Basis::kDct2:
      return FillDct2;
    case Basis::kDct3:
      return FillDct3;
    case Basis::kRandom:
      return FillRandomBasis;
  }
  TY_CHECK(false && "no such basis");
}

// The cost of the FFT of an element in units of a product's n: 16, and for each prime factor 4 and the factor itself
// (dct_bench: at 64 the two are equal; at 1024 the FFT is ten times as fast along rows and five times along columns).
bool FftIsFaster(int64_t n) {
  int64_t cost = 16;
  int64_t rest = n;
  for (int64_t factor = 2; rest > 1; ++factor) {
    if (factor * factor > rest) factor = rest;
    for (; rest % factor == 0; rest /= factor) cost += 4 + factor;
  }
  return cost < n;
}

bool Always(int64_t) {
  return true;
}

}  // namespace

BasisCache::BasisCache(const spec::SubspaceOptions& options) : fill_(FillOf(options.basis)) {
  if (options.basis != Basis::kDct2) return;
  if (options.similarity == Similarity::kFft) uses_fft_ = Always;
  if (options.similarity == Similarity::kAuto) uses_fft_ = FftIsFaster;
}

const FixedBasis* BasisCache::Get(int64_t n, kernels::Arena& arena) {
  const auto [place, is_new] = bases_.try_emplace(n);
  FixedBasis& basis = place->second;
  if (is_new) {
    basis.vectors = arena.Allocate("basis", kernels::DType::kF32, {n, n});
    if (uses_fft_(n)) {
      // An arena that only counts may count for a device that is not there.
      const kernels::Device device = arena.counts_only() ? kernels::Device::kCpu : arena.device();
      basis.plan = std::make_unique<kernels::DctPlan>(n, device);
    }
  }
  return &basis;
}

void BasisCache::Prepare(Stream& stream) {
  if (is_prepared_) return;
  for (const auto& [n, basis] : bases_) fill_(basis.vectors, stream);
  is_prepared_ = true;
}

void FillRandomBasis(const TensorView& vectors, Stream& stream) {
  const int64_t n = vectors.dim(0);
  const size_t length = static_cast<size_t>(n);
  const kernels::PhiloxKey key = {.purpose = kernels::kRandomTest, .tensor = static_cast<uint32_t>(n)};
  std::vector<std::vector<double>> columns(length, std::vector<double>(length));
  for (size_t j = 0; j < length; ++j) {
    std::vector<double>& column = columns[j];
    for (size_t i = 0; i < length; ++i) {
      column[i] = static_cast<double>(kernels::RandomNormal(key, static_cast<uint64_t>(j * length + i)));
    }
    for (int pass = 0; pass < 2; ++pass) {  // twice is enough (Kahan and Parlett)
      for (size_t k = 0; k < j; ++k) {
        double dot = 0;
        for (size_t i = 0; i < length; ++i) dot += columns[k][i] * column[i];
        for (size_t i = 0; i < length; ++i) column[i] -= dot * columns[k][i];
      }
    }
    double squares = 0;
    for (const double value : column) squares += value * value;
    const double scale = 1 / std::sqrt(squares);
    for (double& value : column) value *= scale;
    for (size_t i = 0; i < length; ++i) vectors.as<float>()[i * length + j] = static_cast<float>(column[i]);
  }
}

}  // namespace trainyard::optim
