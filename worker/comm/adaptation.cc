#include "worker/comm/adaptation.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "kernels/codec/level_fit.h"
#include "kernels/codec/maxmin.h"
#include "kernels/codec/piece_math.h"
#include "worker/comm/codecs/huffman_codec.h"
#include "worker/comm/lgreco.h"
#include "worker/comm/make_codec.h"

namespace trainyard::comm {
namespace {

using kernels::TensorView;

const spec::LevelsCodec* AdaptedLevels(const CodecSet::Group& group) {
  const auto* levels = std::get_if<spec::LevelsCodec>(&group.setting.codec);
  return levels != nullptr && levels->table == spec::LevelTable::kAdapted ? levels : nullptr;
}

// Without a table that is missing only because a plan has just made the group.
bool LacksCodeTable(const CodecSet::Group& group) {
  return group.setting.code_table.empty() && MakePackedCodec(group.setting) != nullptr;
}

kernels::LevelNorm NormOf(const spec::LevelsCodec& codec) {
  return codec.norm == spec::LevelNorm::kL2 ? kernels::LevelNorm::kL2 : kernels::LevelNorm::kLInf;
}

}  // namespace

bool IsRefitStep(const spec::LevelsCodec& codec, int64_t step) {
  return (step > 0 && step % codec.refit_interval_steps == 0) ||
         std::find(codec.refit_steps.begin(), codec.refit_steps.end(), step) != codec.refit_steps.end();
}

bool IsInWindow(const spec::LgrecoOptions& plan, int64_t step) {
  return step % plan.interval_steps >= plan.interval_steps - plan.window_steps;
}

bool IsPlanStep(const spec::LgrecoOptions& plan, int64_t step) {
  return (step + 1) % plan.interval_steps == 0;
}

bool IsCodeTableStep(int64_t step) {
  return step == 200 || step == 1000 || step == 5000 || step % 10'000 == 0;
}

Adaptation::Adaptation(ExchangeParts* parts) : parts_(*parts) {
  const CodecSet& codecs = parts->codecs();
  for (const auto& [key, group] : codecs.groups()) has_levels_ |= AdaptedLevels(group) != nullptr;
  has_huffman_ = parts->options().communication.entropy_coding == spec::EntropyCoding::kHuffman;
}

void Adaptation::BeginStep(int64_t step) {
  step_ = step;
  const std::optional<spec::LgrecoOptions>& plan = parts_.options().communication.plan;
  adds_window_ = plan && IsInWindow(*plan, step) && parts_.rank() == 0;
  plans_bits_ = plan && IsPlanStep(*plan, step);
  fits_levels_ = counts_codes_ = false;
  if (!has_levels_ && !has_huffman_) return;
  histograms_.clear();
  counts_.clear();
  for (const auto& [key, group] : parts_.codecs().groups()) {
    const spec::LevelsCodec* const levels = AdaptedLevels(group);
    if (levels != nullptr && IsRefitStep(*levels, step)) {
      histograms_[key] = {};
      fits_levels_ = true;
    }
    // A table made with the old levels fits the new ones a little less well until the next time; no harm in that.
    if (has_huffman_ && key.second > 0 && (IsCodeTableStep(step) || LacksCodeTable(group))) {
      counts_[key].assign(size_t{1} << key.second, 0);
      counts_codes_ = true;
    }
  }
}

void Adaptation::AddToWindow(const BucketTensor& tensor, kernels::Stream& stream) {
  float* const window = parts_.window(tensor.index);
  if (window == nullptr) return;
  const spec::LgrecoOptions& plan = *parts_.options().communication.plan;
  const bool is_first = step_ % plan.interval_steps == plan.interval_steps - plan.window_steps;
  const TensorView sum = FloatsView(window, tensor.gradient.size());
  WidenAdd({.x = tensor.gradient, .addend = is_first ? TensorView() : sum, .y = sum}, stream);
}

absl::Status Adaptation::Look(const std::vector<BucketTensor>& tensors, const PieceCoder& coder) {
  if (!adds_window_ && !fits_levels_ && !counts_codes_) return absl::OkStatus();
  ExchangeMemory buffer(MemoryKindOf(coder.stream()));  // in the steps concerned only
  const CodecSet& codecs = parts_.codecs();
  for (const BucketTensor& tensor : tensors) {
    if (!codecs.is_coded(tensor.index)) continue;
    if (adds_window_) AddToWindow(tensor, coder.stream());
    const CodecSet::GroupKey key = codecs.key(tensor.index);
    const auto histogram = histograms_.find(key);
    const auto counts = counts_.find(key);
    if (histogram == histograms_.end() && counts == counts_.end()) continue;
    const int64_t elements = tensor.gradient.size();
    TY_RETURN_IF_ERROR(buffer.Grow(elements * static_cast<int64_t>(sizeof(float))));
    const Slice slice{{tensor.index, 0, elements}, tensor.gradient.Reshape({elements})};
    const float* const values = coder.Piece(slice, buffer.floats());
    TY_RETURN_IF_ERROR(coder.stream().Synchronize());
    const CodecSet::Group& group = codecs.groups().at(key);
    if (histogram != histograms_.end()) {
      const spec::LevelsCodec& levels = *AdaptedLevels(group);
      AddToHistogram(values, elements, NormOf(levels), levels.bucket_size, &histogram->second);
    }
    if (counts != counts_.end()) {
      const std::unique_ptr<PackedCodec> codec = MakePackedCodec(group.setting);
      const CodecKey random{parts_.options().seed, step_, parts_.rank(), 1};
      AddCodeCounts(*codec, slice.where, random, values, absl::MakeSpan(counts->second));
    }
  }
  return absl::OkStatus();
}

// All ranks' numbers to all, added up in rank order. Only rank 0 needs them, but this happens a handful of times.
absl::Status Adaptation::SumOverRanks(Communicator& communicator) {
  std::vector<double> numbers;
  for (const auto& [key, histogram] : histograms_) {
    numbers.insert(numbers.end(), histogram.mass.begin(), histogram.mass.end());
    numbers.insert(numbers.end(), histogram.moment.begin(), histogram.moment.end());
  }
  for (const auto& [key, counts] : counts_) numbers.insert(numbers.end(), counts.begin(), counts.end());
  if (numbers.empty()) return absl::OkStatus();
  const auto ranks = static_cast<size_t>(communicator.size());
  std::vector<double> all(numbers.size() * ranks);
  const std::vector<int64_t> bytes(ranks, static_cast<int64_t>(numbers.size() * sizeof(double)));
  TY_RETURN_IF_ERROR(communicator.AllGatherBytes(numbers.data(), bytes, all.data()));
  for (size_t i = 0; i < numbers.size(); ++i) {
    numbers[i] = 0;
    for (size_t rank = 0; rank < ranks; ++rank) numbers[i] += all[rank * numbers.size() + i];
  }
  const double* next = numbers.data();
  for (auto& [key, histogram] : histograms_) {
    std::copy_n(next, histogram.mass.size(), histogram.mass.begin());
    next += histogram.mass.size();
    std::copy_n(next, histogram.moment.size(), histogram.moment.begin());
    next += histogram.moment.size();
  }
  for (auto& [key, counts] : counts_) {
    for (int64_t& count : counts) count = static_cast<int64_t>(*next++);
  }
  return absl::OkStatus();
}

void Adaptation::PlanBits(kernels::Stream& stream) {
  CodecSet& codecs = parts_.codecs();
  const spec::LgrecoOptions& options = *parts_.options().communication.plan;
  std::vector<LgrecoTensor> tensors;
  std::vector<int> indices, bits(parts_.tensors().size(), 0);
  for (size_t i = 0; i < parts_.tensors().size(); ++i) {
    const int index = static_cast<int>(i);
    bits[i] = codecs.bits(index);
    float* const window = parts_.window(index);
    if (window == nullptr) continue;
    const int64_t elements = parts_.tensors()[i].elements;
    const auto type = static_cast<size_t>(codecs.type_of(index));
    const auto& maxmin = std::get<spec::MaxminCodec>(codecs.types()[type].codec);
    LgrecoTensor& tensor = tensors.emplace_back();
    tensor.default_choice = maxmin.bits - options.bits_min;
    for (int b = options.bits_min; b <= options.bits_max; ++b) {
      const kernels::MaxminFormat format{.bits = b, .bucket_size = maxmin.bucket_size};
      const bool nearest = maxmin.rounding == spec::Rounding::kNearest;
      const double squared = MaxminSquaredError(
          {.x = TensorView(window, kernels::DType::kF32, {elements}),
           .format = format,
           .rounding = nearest ? kernels::CodeRounding::kNearest : kernels::CodeRounding::kStochastic},
          stream);
      tensor.errors.push_back(std::sqrt(squared));
      tensor.sizes.push_back(format.WireOf(elements).bytes());
    }
    indices.push_back(index);
  }
  const absl::StatusOr<LgrecoPlan> plan = PlanLgreco(tensors, options.alpha);
  if (!plan.ok()) {  // a step with gradients that are not finite was in the window
    LogWarning("step ", step_, ": bits stay as they are: ", plan.status().message());
    return;
  }
  for (size_t t = 0; t < indices.size(); ++t) {
    bits[static_cast<size_t>(indices[t])] = options.bits_min + plan->choices[t];
  }
  codecs.SetBits(bits);
}

void Adaptation::Decide(kernels::Stream& stream) {
  CodecSet& codecs = parts_.codecs();
  for (const auto& [key, histogram] : histograms_) {
    if (!(histogram.total() > 0)) continue;
    codecs.SetLevels(key, kernels::RefitLevels(histogram, codecs.groups().at(key).setting.levels));
  }
  for (const auto& [key, counts] : counts_) {
    if (std::all_of(counts.begin(), counts.end(), [](int64_t count) { return count == 0; })) continue;
    codecs.SetCodeTable(key, kernels::HuffmanTable::FromCounts(counts).ToText());
  }
  if (plans_bits_) PlanBits(stream);
}

absl::StatusOr<bool> Adaptation::EndStep(Communicator& communicator, kernels::Stream& stream) {
  if (!fits_levels_ && !plans_bits_ && !counts_codes_) return false;
  TY_RETURN_IF_ERROR(SumOverRanks(communicator));
  const int64_t epoch = parts_.codecs().epoch();
  if (communicator.rank() == 0) Decide(stream);
  const std::string from_step = absl::StrCat("from ", step_ + 1, "\n");
  TY_ASSIGN_OR_RETURN(const std::string decided,
                      BroadcastString(communicator, absl::StrCat(from_step, parts_.codecs().Text()), 0));
  absl::string_view text = decided;
  if (!absl::ConsumePrefix(&text, from_step)) {
    return absl::DataLossError(
        absl::StrCat("rank 0 announced codecs '", decided.substr(0, 20), "...', expected those from step ", step_ + 1));
  }
  // Rank 0 too takes them from the text, so that what is restored later is what it went on with.
  TY_RETURN_IF_ERROR(parts_.codecs().Restore(std::string(text)));
  return parts_.codecs().epoch() != epoch;
}

}  // namespace trainyard::comm
