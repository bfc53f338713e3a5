#include <algorithm>
#include <cstring>

#include "kernels/codec/random_words.h"
#include "kernels/core/simd.h"
#include "kernels/optim/blocks.h"
#include "kernels/optim/eco_internal.h"
#include "kernels/quant/coded_matrix_internal.h"

namespace trainyard::kernels::internal {
namespace {

static_assert(kBlock == kCodeBlock);

// One block on its way: what was loaded, and what becomes of it.
struct EcoBlock {
  alignas(64) float weight[kBlock], next[kBlock], m[kBlock], v[kBlock], divisor[kBlock], stored_m[kBlock];
  alignas(64) float buffers[3][kBlock];  // grad, m, v if they are bf16
  alignas(64) uint8_t unpacked[kBlock], codes[kBlock];
  alignas(64) uint32_t words[RandomBufferWords(kBlock)];
  const uint8_t* old_codes = nullptr;
};

TY_SIMD void RoundToBF16(float* x, int64_t count) {
  for (int64_t i = 0; i < count; ++i) x[i] = ToFloat(FromFloat<BFloat16>(x[i]));
}

TY_SIMD void AdvanceAdamW(const EcoConstants<float>& constants, const float* grad, float grad_scale, const float* m,
                          const float* v, int64_t count, EcoBlock& block) {
  const AdamWConstants<float> k = constants.adamw;
  for (int64_t i = 0; i < count; ++i) {
    float m_next = m[i], v_next = v[i], divisor;
    block.next[i] = AdamWElement(k, grad[i] * grad_scale, block.weight[i], m_next, v_next, divisor);
    block.m[i] = m_next;
    block.v[i] = v_next;
    block.divisor[i] = divisor;
  }
}

TY_SIMD void AdvanceSgdm(const EcoConstants<float>& constants, const float* grad, float grad_scale, const float* m,
                         int64_t count, EcoBlock& block) {
  const EcoConstants<float> k = constants;
  for (int64_t i = 0; i < count; ++i) {
    float m_next = m[i];
    block.next[i] = EcoSgdmElement(k, grad[i] * grad_scale, block.weight[i], m_next);
    block.m[i] = m_next;
  }
}

// block.weight holds what the new codes decode to.
TY_SIMD void InjectAdamW(const EcoConstants<float>& constants, int64_t count, EcoBlock& block) {
  const EcoConstants<float> k = constants;
  for (int64_t i = 0; i < count; ++i) {
    block.stored_m[i] = EcoInjectAdamW(k, block.m[i], block.divisor[i], block.next[i] - block.weight[i]);
  }
}

TY_SIMD void InjectSgdm(const EcoConstants<float>& constants, int64_t count, EcoBlock& block) {
  const EcoConstants<float> k = constants;
  for (int64_t i = 0; i < count; ++i) {
    block.stored_m[i] = EcoInjectSgdm(k, block.m[i], 0.0f, block.next[i] - block.weight[i]);
  }
}

TY_SIMD void InjectExact(const EcoConstants<float>& constants, int64_t count, EcoBlock& block, float* error) {
  const EcoConstants<float> k = constants;
  const float kept = k.injection == 0 ? 0.0f : 1.0f;  // what was not injected must not be paid back
  for (int64_t i = 0; i < count; ++i) {
    const float e = block.next[i] - block.weight[i];
    block.stored_m[i] = EcoInjectSgdm(k, block.m[i], error[i], e);
    error[i] = e * kept;
  }
}

// sum (after - before)^2 and sum before^2, in kLanes partial sums added in order.
TY_SIMD void AddSquares(const float* before, const float* after, int64_t count, float* statistics) {
  alignas(64) float injection[kLanes] = {}, momentum[kLanes] = {};
  const int64_t whole = count / kLanes * kLanes;
  for (int64_t i = 0; i < whole; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const float difference = after[i + lane] - before[i + lane];
      injection[lane] += difference * difference;
    }
  }
  for (int64_t i = 0; i < whole; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) momentum[lane] += before[i + lane] * before[i + lane];
  }
  for (int64_t i = whole; i < count; ++i) {
    injection[0] += (after[i] - before[i]) * (after[i] - before[i]);
    momentum[0] += before[i] * before[i];
  }
  for (int lane = 0; lane < kLanes; ++lane) {
    statistics[kEcoInjectionSquares] += injection[lane];
    statistics[kEcoMomentumSquares] += momentum[lane];
  }
}

TY_SIMD int64_t CountDifferent(const uint8_t* a, const uint8_t* b, int64_t count) {
  int32_t different = 0;
  for (int64_t i = 0; i < count; ++i) different += a[i] != b[i] ? 1 : 0;
  return different;
}

class EcoStep {
 public:
  explicit EcoStep(const EcoArgs& args)
      : args_(args),
        format_(args.weights.codes.dtype()),
        is_coded_(format_ != DType::kF32),
        span_(args.weights.span()),
        constants_(EcoConstantsOf(args)),
        grad_scale_(args.grad_scale * (args.gradient_factor ? *args.gradient_factor.as<float>() : 1.0f)),
        rounding_{Rounding::kStochastic, args.random, args.first_element} {}

  float Largest(int64_t begin, int64_t count) const {
    EcoBlock block;
    Advance(begin, count, block);
    return MagnitudeOfLargest(block.next, count);
  }

  // Adds to `statistics`, if there.
  void Run(int64_t begin, int64_t count, const Scale* known, float* statistics) const {
    EcoBlock block;
    Advance(begin, count, block);
    const int64_t clipped = Encode(begin, count, known, statistics != nullptr, block);
    switch (args_.form) {
      case EcoForm::kAdamW:
        InjectAdamW(constants_, count, block);
        StoreBlock(block.v, rounding_.For(kRandomRoundSecondMoment), begin, count, args_.v);
        break;
      case EcoForm::kSgdm:
        InjectSgdm(constants_, count, block);
        break;
      case EcoForm::kSgdmExact:
        InjectExact(constants_, count, block, args_.error.as<float>() + begin);
        break;
    }
    StoreBlock(block.stored_m, rounding_.For(kRandomRoundFirstMoment), begin, count, args_.m);
    if (statistics != nullptr) {
      if (is_coded_) statistics[kEcoChanged] += static_cast<float>(CountDifferent(block.codes, block.old_codes, count));
      statistics[kEcoClipped] += static_cast<float>(clipped);
      AddSquares(block.m, block.stored_m, count, statistics);
    }
    if (is_coded_) StoreCodes(block.codes, args_.weights, begin, count);
  }

 private:
  // Decodes the weights and makes block.next, m, v and divisor; writes no tensor.
  void Advance(int64_t begin, int64_t count, EcoBlock& block) const {
    if (!is_coded_) {
      std::memcpy(block.weight, args_.weights.codes.as<float>() + begin, static_cast<size_t>(count) * sizeof(float));
    } else {
      block.old_codes = LoadCodes(args_.weights, begin, count, block.unpacked);
      const int64_t part = std::min(count, span_);
      for (int64_t at = 0; at < count; at += part) {
        Decode(format_, block.old_codes + at, LoadScale(args_.weights, (begin + at) / span_), part, block.weight + at);
      }
    }
    if (is_coded_ && args_.weight_value == DType::kBF16) RoundToBF16(block.weight, count);
    const float* const grad = LoadBlock(args_.grad, begin, count, block.buffers[0]);
    const float* const m = LoadBlock(args_.m, begin, count, block.buffers[1]);
    if (args_.form == EcoForm::kAdamW) {
      const float* const v = LoadBlock(args_.v, begin, count, block.buffers[2]);
      AdvanceAdamW(constants_, grad, grad_scale_, m, v, count, block);
    } else {
      AdvanceSgdm(constants_, grad, grad_scale_, m, count, block);
    }
  }

  // Makes block.codes of block.next, and block.weight of the codes.
  int64_t Encode(int64_t begin, int64_t count, const Scale* known, bool counts_clipped, EcoBlock& block) const {
    int64_t clipped = 0;
    if (!is_coded_) {
      std::memcpy(args_.weights.codes.as<float>() + begin, block.next, static_cast<size_t>(count) * sizeof(float));
      std::memcpy(block.weight, block.next, static_cast<size_t>(count) * sizeof(float));
    } else {
      PhiloxKey key = args_.random;
      key.purpose = kRandomRoundWeight;
      const uint32_t* const words =
          args_.rounding == Rounding::kStochastic
              ? RandomWords(key, static_cast<uint64_t>(args_.first_element + begin), count, block.words)
              : nullptr;
      const int64_t part = known != nullptr ? count : span_;
      for (int64_t at = 0; at < count; at += part) {
        float* const next = block.next + at;
        const Scale scale = known != nullptr ? *known : MakeScale(args_.weights, MagnitudeOfLargest(next, part));
        if (known == nullptr) StoreScale(scale.value, args_.weights, (begin + at) / span_);
        internal::Encode(format_, next, scale, words == nullptr ? nullptr : words + at, part, block.codes + at);
        Decode(format_, block.codes + at, scale.value, part, block.weight + at);
        if (counts_clipped) clipped += CountClipped(format_, next, scale.inverse, part);
      }
    }
    if (is_coded_ && args_.weight_value == DType::kBF16) RoundToBF16(block.weight, count);
    return clipped;
  }

  const EcoArgs& args_;
  const DType format_;
  const bool is_coded_;
  const int64_t span_;
  const EcoConstants<float> constants_;
  const float grad_scale_;
  const BlockRounding rounding_;
};

}  // namespace

void EcoCpu(const EcoArgs& args, Stream& stream) {
  const EcoStep step(args);
  float* const statistics = args.statistics ? args.statistics.as<float>() : nullptr;
  if (statistics != nullptr) std::fill_n(statistics, args.statistics.size(), 0.0f);
  ForCodeBlocks(
      args.weights, stream, [&](int64_t begin, int64_t count) { return step.Largest(begin, count); },
      [&](int64_t task, int64_t begin, int64_t count, const Scale* known) {
        step.Run(begin, count, known, statistics == nullptr ? nullptr : statistics + task * kEcoStatistics);
      });
}

}  // namespace trainyard::kernels::internal
