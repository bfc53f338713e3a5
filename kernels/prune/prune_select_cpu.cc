#include <algorithm>
#include <atomic>
#include <cstring>

#include "kernels/codec/bit_packing.h"
#include "kernels/core/simd.h"
#include "kernels/optim/blockwise/moment8.h"
#include "kernels/prune/prune_select_internal.h"
#include "kernels/prune/stored_tensor.h"

namespace trainyard::kernels::internal {
namespace {

// Keys of one block: `high` is compared first.
struct Keys {
  alignas(64) uint32_t high[kPruneBlock];
  alignas(64) uint32_t low[kPruneBlock];
  alignas(64) float fisher[kPruneBlock];
};

TY_SIMD void Magnitudes(const float* w, int64_t count, uint32_t* magnitudes) {
  for (int64_t i = 0; i < count; ++i) magnitudes[i] = MagnitudeBits(w[i]);
}

TY_SIMD void Scores(const float* w, const float* fisher, float factor, int64_t count, uint32_t* scores) {
  for (int64_t i = 0; i < count; ++i) scores[i] = ScoreBits(w[i], fisher[i], factor);
}

void MakeKeys(const PruneScore& score, int64_t begin, int64_t count, Keys* keys) {
  const float* const w = score.w.as<float>() + begin;
  if (!score.fisher) {
    Magnitudes(w, count, keys->high);
    std::fill_n(keys->low, count, 0u);
    return;
  }
  const float* fisher = keys->fisher;
  if (score.fisher.dtype() == DType::kU8) {
    LoadSecondMoments8(score.fisher, score.fisher_scales, begin, count, keys->fisher);
  } else {
    fisher = score.fisher.as<float>() + begin;
  }
  Scores(w, fisher, score.fisher_factor, count, keys->high);
  Magnitudes(w, count, keys->low);
}

uint64_t KeyAt(const Keys& keys, int64_t i) {
  return (uint64_t{keys.high[i]} << 32) | keys.low[i];
}

TY_SIMD void FlagNotBelow(const Keys& keys, uint64_t key, int64_t count, uint8_t* flags) {
  const auto high = static_cast<uint32_t>(key >> 32), low = static_cast<uint32_t>(key);
  for (int64_t i = 0; i < count; ++i) {
    const bool is_below = (keys.high[i] < high) | ((keys.high[i] == high) & (keys.low[i] < low));
    flags[i] = is_below ? 0 : 1;
  }
}

TY_SIMD int64_t CountEqual(const Keys& keys, uint64_t key, int64_t count) {
  const auto high = static_cast<uint32_t>(key >> 32), low = static_cast<uint32_t>(key);
  int32_t equal = 0;
  for (int64_t i = 0; i < count; ++i) equal += (keys.high[i] == high) & (keys.low[i] == low) ? 1 : 0;
  return equal;
}

// Clears the bits of the first `ties` keys that equal `key`.
void PruneTies(const PruneMaskArgs& args) {
  uint8_t* const mask = args.mask.as<uint8_t>();
  int64_t left = args.threshold.ties;
  Keys keys;
  for (int64_t begin = 0; left > 0 && begin < args.score.w.size(); begin += kPruneBlock) {
    const int64_t count = std::min(kPruneBlock, args.score.w.size() - begin);
    MakeKeys(args.score, begin, count, &keys);
    if (CountEqual(keys, args.threshold.key, count) == 0) continue;
    for (int64_t i = 0; i < count && left > 0; ++i) {
      if (KeyAt(keys, i) != args.threshold.key) continue;
      const int64_t element = begin + i;
      mask[element / 8] = static_cast<uint8_t>(mask[element / 8] & ~(1u << (element % 8)));
      --left;
    }
  }
}

}  // namespace

void PruneHistogramCpu(const PruneHistogramArgs& args, Stream& stream) {
  std::atomic<uint32_t> totals[256] = {};
  const int shift = args.digit.shift;
  stream.pool().ParallelFor(args.score.w.size(), kPruneGrain, [&](int64_t range_begin, int64_t range_end) {
    constexpr int kTables = 4;  // neighbours often share a bin: no waiting for the store
    uint32_t counts[kTables][256] = {};
    Keys keys;
    for (int64_t begin = range_begin; begin < range_end; begin += kPruneBlock) {
      const int64_t count = std::min(kPruneBlock, range_end - begin);
      MakeKeys(args.score, begin, count, &keys);
      for (int64_t i = 0; i < count; ++i) {
        const uint64_t key = KeyAt(keys, i);
        if (((key ^ args.digit.prefix) >> shift) >> 8 != 0) continue;
        ++counts[i % kTables][(key >> shift) & 255];
      }
    }
    for (int value = 0; value < 256; ++value) {
      uint32_t sum = 0;
      for (const auto& table : counts) sum += table[value];
      if (sum > 0) totals[value].fetch_add(sum, std::memory_order_relaxed);
    }
  });
  for (int value = 0; value < 256; ++value) args.counts.as<uint32_t>()[value] = totals[value].load();
}

void PruneEqualCpu(const PruneEqualArgs& args, Stream& stream) {
  std::atomic<uint32_t> total{0};
  stream.pool().ParallelFor(args.score.w.size(), kPruneGrain, [&](int64_t range_begin, int64_t range_end) {
    Keys keys;
    for (int64_t begin = range_begin; begin < range_end; begin += kPruneBlock) {
      const int64_t count = std::min(kPruneBlock, range_end - begin);
      MakeKeys(args.score, begin, count, &keys);
      total += static_cast<uint32_t>(CountEqual(keys, args.key, count));
    }
  });
  *args.count.as<uint32_t>() = total.load();
}

void PruneMaskCpu(const PruneMaskArgs& args, Stream& stream) {
  const bool prunes_all_ties = args.threshold.ties == kAllTies;
  const uint64_t first_kept = FirstKeptKey(args.threshold);
  stream.pool().ParallelFor(args.score.w.size(), kPruneGrain, [&](int64_t range_begin, int64_t range_end) {
    Keys keys;
    alignas(64) uint8_t flags[kPruneBlock];
    for (int64_t begin = range_begin; begin < range_end; begin += kPruneBlock) {
      const int64_t count = std::min(kPruneBlock, range_end - begin);
      MakeKeys(args.score, begin, count, &keys);
      FlagNotBelow(keys, first_kept, count, flags);
      PackCodes(flags, count, 1, args.mask.as<uint8_t>() + begin / 8);
    }
  });
  if (!prunes_all_ties) PruneTies(args);
}

void PruneGroupsCpu(const PruneGroupsArgs& args, Stream& stream) {
  const int64_t group = args.group;
  const int64_t pruned = group - args.keep;
  // Whole groups and whole bytes of the mask: blocks of 8 groups at least.
  const int64_t block = kPruneBlock / (8 * group) * (8 * group);
  stream.pool().ParallelFor(args.score.w.size(), 16 * block, [&](int64_t range_begin, int64_t range_end) {
    Keys keys;
    alignas(64) uint8_t flags[kPruneBlock];
    for (int64_t begin = range_begin; begin < range_end; begin += block) {
      const int64_t count = std::min(block, range_end - begin);
      MakeKeys(args.score, begin, count, &keys);
      for (int64_t first = 0; first < count; first += group) {
        for (int64_t i = first; i < first + group; ++i) {
          int64_t lower = 0;  // elements of the group pruned before this one
          for (int64_t j = first; j < first + group; ++j) {
            const uint64_t other = KeyAt(keys, j), own = KeyAt(keys, i);
            lower += other < own || (other == own && j < i) ? 1 : 0;
          }
          flags[i] = lower >= pruned ? 1 : 0;
        }
      }
      PackCodes(flags, count, 1, args.mask.as<uint8_t>() + begin / 8);
    }
  });
}

}  // namespace trainyard::kernels::internal
