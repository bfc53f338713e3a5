// Philox4x32-10, a counter-based generator (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
// A random word is a function of what it is for, never of who computes it or of what was drawn before.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>

#include "kernels/core/simd.h"

namespace trainyard::kernels {

// What a stream of random words is for. `purpose` separates uses that share the other numbers (kRandom... below).
struct PhiloxKey {
  uint64_t seed = 0;
  uint32_t step = 0;
  uint16_t micro_step = 0;
  uint16_t purpose = 0;
  uint32_t tensor = 0;
};

// Registry of purposes: one number each, for ever, since checkpoints and reproductions depend on them.
inline constexpr uint16_t kRandomInit = 1;
inline constexpr uint16_t kRandomShuffle = 2;
inline constexpr uint16_t kRandomSample = 3;
inline constexpr uint16_t kRandomRoundWeight = 4;
inline constexpr uint16_t kRandomRoundFirstMoment = 5;
inline constexpr uint16_t kRandomRoundSecondMoment = 6;
inline constexpr uint16_t kRandomTest = 7;
inline constexpr uint16_t kRandomCodec = 8;          // rounding of gradients on the wire
inline constexpr uint16_t kRandomPowerSgd = 9;       // first Q
inline constexpr uint16_t kRandomLatent = 10;        // z of a generator
inline constexpr uint16_t kRandomPenalty = 11;       // interpolation of the gradient penalty
inline constexpr uint16_t kRandomImage = 12;         // synthetic samples
inline constexpr uint16_t kRandomProjection = 13;    // directions of the sliced Wasserstein distance
inline constexpr uint16_t kRandomQuantize = 14;      // rounding of a layer's operands
inline constexpr uint16_t kRandomHadamardSign = 15;  // signs of random rotations
inline constexpr uint16_t kRandomPruneSearch = 20;   // mutations and documents of a pruning search
inline constexpr uint16_t kRandomDirection = 40;     // tangents' parameter directions
inline constexpr uint16_t kRandomProjectorSign = 41;
inline constexpr uint16_t kRandomProjectorRow = 42;
inline constexpr uint16_t kRandomElementMask = 43;

// The four words of one counter value.
TY_INLINE std::array<uint32_t, 4> Philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53} * counter[0];
    const uint64_t product1 = uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(product1),
               static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(product0)};
    key[0] += 0x9E3779B9;
    key[1] += 0xBB67AE85;
  }
  return counter;
}

// Four words for elements 4*block .. 4*block+3 of the tensor. Elements number up to 2^34.
TY_INLINE std::array<uint32_t, 4> RandomBlock(const PhiloxKey& key, uint32_t block) {
  return Philox4x32({block, key.tensor, key.step, (uint32_t{key.purpose} << 16) | key.micro_step},
                    {static_cast<uint32_t>(key.seed), static_cast<uint32_t>(key.seed >> 32)});
}

// The word of one element.
TY_INLINE uint32_t RandomWord(const PhiloxKey& key, uint64_t element) {
  return RandomBlock(key, static_cast<uint32_t>(element >> 2))[element & 3];
}

// Uniform in [0, 1) with 24 bits; exact in float.
TY_INLINE float ToUniform(uint32_t word) {
  return static_cast<float>(word >> 8) * 0x1p-24f;
}

// Standard normal of element `element` (Box-Muller on the words of its block pair); the same on every platform with
// IEEE double log, cos and sqrt.
inline float RandomNormal(const PhiloxKey& key, uint64_t element) {
  const std::array<uint32_t, 4> words = RandomBlock(key, static_cast<uint32_t>(element >> 1));
  const uint32_t a = words[(element & 1) * 2];
  const uint32_t b = words[(element & 1) * 2 + 1];
  const double radius = std::sqrt(-2.0 * std::log((static_cast<double>(a) + 1.0) * 0x1p-32));
  return static_cast<float>(radius * std::cos(static_cast<double>(b) * (0x1p-32 * 6.283185307179586)));
}

}  // namespace trainyard::kernels
