#include "worker/data/permutation.h"

#include "base/check.h"
#include "kernels/core/philox.h"

namespace trainyard::data {
namespace {

// Three make a permutation that cannot be told from random by few queries; the rest is for halves of one or two bits.
constexpr uint32_t kRounds = 8;

}  // namespace

Permutation::Permutation(int64_t size, uint64_t seed, uint32_t epoch)
    : size_(static_cast<uint64_t>(size)), seed_(seed), epoch_(epoch) {
  TY_CHECK_GE(size, 1);
  TY_CHECK_LE(size, int64_t{1} << 62);
  while ((uint64_t{1} << (2 * half_bits_)) < size_) ++half_bits_;
}

uint64_t Permutation::Pass(uint64_t value) const {
  const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
  uint64_t left = value >> half_bits_;
  uint64_t right = value & mask;
  kernels::PhiloxKey key{.seed = seed_, .step = epoch_, .purpose = kernels::kRandomShuffle};
  for (uint32_t round = 0; round < kRounds; ++round) {
    key.tensor = round;
    const uint64_t mixed = left ^ (kernels::RandomBlock(key, static_cast<uint32_t>(right))[0] & mask);
    left = right;
    right = mixed;
  }
  return (left << half_bits_) | right;
}

int64_t Permutation::operator()(int64_t index) const {
  TY_CHECK_GE(index, 0);
  TY_CHECK_LT(static_cast<uint64_t>(index), size_);
  uint64_t value = static_cast<uint64_t>(index);
  do {
    value = Pass(value);
  } while (value >= size_);
  return static_cast<int64_t>(value);
}

}  // namespace trainyard::data
