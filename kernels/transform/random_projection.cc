#include "kernels/transform/random_projection.h"

#include <algorithm>
#include <array>
#include <bit>
#include <numeric>

#include "base/check.h"
#include "kernels/core/dispatch.h"
#include "kernels/transform/random_projection_internal.h"

namespace trainyard::kernels {

void WalshHadamard(float* data, int64_t size, Stream& stream) {
  TY_CHECK(size >= 1 && (size & (size - 1)) == 0);
  TY_SELECT(stream, WalshHadamard)(data, size, stream);
}

std::vector<uint32_t> RandomSubset(const PhiloxKey& key, int64_t population, int64_t count) {
  TY_CHECK_LE(count, population);
  std::vector<uint32_t> chosen(static_cast<size_t>(count));
  if (count == population) {
    std::iota(chosen.begin(), chosen.end(), 0u);
    return chosen;
  }
  // Number population - count + i, or an earlier one drawn at random.
  std::vector<bool> taken(static_cast<size_t>(population));
  for (int64_t i = 0; i < count; ++i) {
    const auto last = static_cast<uint64_t>(population - count + i);
    const std::array<uint32_t, 4> words = RandomBlock(key, static_cast<uint32_t>(i));
    const uint64_t wide = (uint64_t{words[0]} << 32) | words[1];
    const auto drawn = static_cast<uint64_t>((static_cast<unsigned __int128>(wide) * (last + 1)) >> 64);
    const uint64_t number = taken[drawn] ? last : drawn;
    taken[number] = true;
    chosen[static_cast<size_t>(i)] = static_cast<uint32_t>(number);
  }
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

RandomProjection::RandomProjection(Kind kind, int64_t length, int64_t outputs, uint64_t seed, Device device)
    : kind_(kind), length_(length), seed_(seed), device_(device) {
  TY_CHECK_GE(length, 1);
  TY_CHECK_LE(length, int64_t{1} << 32);
  TY_CHECK_GE(outputs, 1);
  padded_ = static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(length)));
  outputs_ = kind == Kind::kRademacher ? outputs : kind == Kind::kNone ? length : std::min(outputs, padded_);
  if (kind != Kind::kHadamard) return;
  const std::vector<uint32_t> rows = RandomSubset({.seed = seed, .purpose = kRandomProjectorRow}, padded_, outputs_);
  rows_ = internal::DeviceArray<uint32_t>(rows, device);
}

void RandomProjection::Apply(const float* x, float* scratch, float* out, Stream& stream) const {
  const internal::ProjectionArgs args = {.kind = kind_,
                                         .key = {.seed = seed_, .purpose = kRandomProjectorSign},
                                         .length = length_,
                                         .padded = padded_,
                                         .outputs = outputs_,
                                         .rows = rows_.data(),
                                         .x = x,
                                         .scratch = scratch,
                                         .out = out};
  if (device_ == Device::kCuda) {
    TY_SELECT(stream, Project)(args, stream);
  } else {
    TY_SELECT_HOST(stream, Project)(args, stream);
  }
}

}  // namespace trainyard::kernels
