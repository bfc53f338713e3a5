#include "worker/data/sample_loader.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/digest.h"
#include "base/status_macros.h"
#include "worker/data/permutation.h"

namespace trainyard::data {

void WriteSampleRow(const std::vector<int32_t>& tokens, int64_t label_begin, double weight, const SampleRow& row) {
  const auto count = static_cast<int64_t>(tokens.size());
  for (int64_t i = 0; i < row.length; ++i) {
    row.tokens[i] = i < count ? tokens[static_cast<size_t>(i)] : 0;
    const bool is_label = i + 1 < count && i + 1 >= label_begin;
    row.targets[i] = is_label ? tokens[static_cast<size_t>(i) + 1] : kIgnoredTarget;
  }
  if (row.weights != nullptr) std::fill_n(row.weights, row.length, static_cast<float>(weight));
}

absl::StatusOr<std::unique_ptr<SampleLoader>> SampleLoader::Open(const LoaderOptions& options) {
  TY_CHECK_GE(options.rank, 0);
  TY_CHECK_LT(options.rank, options.world_size);
  if (options.sequence_length < 1) {
    return absl::InvalidArgumentError(absl::StrCat("sequence_length: ", options.sequence_length, " is below 1"));
  }
  TY_ASSIGN_OR_RETURN(SampleSet set, SampleSet::Open(options.directory));
  if (set.info().vocab_size > options.vocab_size) {
    return absl::FailedPreconditionError(absl::StrCat(options.directory, ": the sample set's vocabulary has ",
                                                      set.info().vocab_size, " tokens, the model's only ",
                                                      options.vocab_size));
  }
  std::unique_ptr<SampleLoader> loader(new SampleLoader(options, std::move(set)));
  double weights = 0;
  for (int64_t i = 0; i < loader->set_.size(); ++i) {
    const SampleRecord& record = loader->set_.record(i);
    if (record.LabelCount(options.sequence_length) == 0) continue;
    if (record.split == Split::kValidation) {
      loader->validation_.push_back(i);
    } else if (record.weight > 0) {
      loader->train_.push_back(i);
      weights += record.weight;
    }
  }
  if (loader->train_.empty()) {
    return absl::FailedPreconditionError(absl::StrCat(options.directory, ": none of its ", loader->set_.size(),
                                                      " samples has a weight and a label within sequence_length ",
                                                      options.sequence_length));
  }
  loader->mean_weight_ = weights / static_cast<double>(loader->train_.size());
  return loader;
}

absl::Status SampleLoader::CopyRow(int64_t sample, const BatchViews& batch, int64_t row, bool is_validation) const {
  const int64_t length = options_.sequence_length;
  const SampleRecord& record = set_.record(sample);
  TY_ASSIGN_OR_RETURN(const std::vector<int32_t> source, set_.Tokens(sample, length + 1));
  const double scale = is_validation ? 1
                                     : record.weight / mean_weight_ * static_cast<double>(length) /
                                           static_cast<double>(record.LabelCount(length));
  WriteSampleRow(source, record.label_begin, scale,
                 {.tokens = batch.tokens.as<int32_t>() + row * length,
                  .targets = batch.targets.as<int32_t>() + row * length,
                  .weights = batch.weights ? batch.weights.as<float>() + row * length : nullptr,
                  .length = length});
  return absl::OkStatus();
}

absl::Status SampleLoader::NextBatch(const BatchViews& batch) {
  TY_CHECK(batch.weights);
  TY_CHECK_EQ(batch.tokens.size() % options_.sequence_length, 0);
  const int64_t rows = batch.tokens.size() / options_.sequence_length;
  const int64_t samples = train_rows();
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t number = position_.next_sample + options_.rank * rows + row;
    const Permutation permutation(samples, options_.seed, static_cast<uint32_t>(position_.epoch + number / samples));
    TY_RETURN_IF_ERROR(CopyRow(train_[static_cast<size_t>(permutation(number % samples))], batch, row, false));
  }
  const int64_t end = position_.next_sample + options_.world_size * rows;
  position_ = {.epoch = position_.epoch + end / samples, .next_sample = end % samples};
  return absl::OkStatus();
}

absl::StatusOr<int64_t> SampleLoader::ValidationBatch(int64_t first, const BatchViews& batch) const {
  TY_CHECK_GE(first, 0);
  const int64_t length = options_.sequence_length;
  const int64_t rows = batch.tokens.size() / length;
  const int64_t real = std::clamp<int64_t>(validation_rows() - first, 0, rows);
  for (int64_t row = 0; row < real; ++row) {
    TY_RETURN_IF_ERROR(CopyRow(validation_[static_cast<size_t>(first + row)], batch, row, true));
  }
  std::fill(batch.tokens.as<int32_t>() + real * length, batch.tokens.as<int32_t>() + rows * length, 0);
  std::fill(batch.targets.as<int32_t>() + real * length, batch.targets.as<int32_t>() + rows * length, kIgnoredTarget);
  if (batch.weights) std::fill_n(batch.weights.as<float>() + real * length, (rows - real) * length, 0.0f);
  return real;
}

absl::Status SampleLoader::Restore(const LoaderPosition& position) {
  if (position.epoch < 0 || position.next_sample < 0 || position.next_sample >= train_rows()) {
    return absl::OutOfRangeError(absl::StrCat("loader position: epoch ", position.epoch, ", sample ",
                                              position.next_sample, " is not in a sample set of ", train_rows(),
                                              " samples (", options_.directory, ")"));
  }
  position_ = position;
  return absl::OkStatus();
}

std::string SampleLoader::Fingerprint() const {
  return DigestOf(absl::StrCat(set_.info().Fingerprint(), " ", options_.sequence_length, " ", options_.seed));
}

}  // namespace trainyard::data
