#include "worker/data/loader.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/digest.h"
#include "base/status_macros.h"
#include "worker/data/permutation.h"

namespace trainyard::data {

absl::StatusOr<Loader> Loader::Open(const LoaderOptions& options) {
  TY_CHECK_GE(options.rank, 0);
  TY_CHECK_LT(options.rank, options.world_size);
  if (options.sequence_length < 1) {
    return absl::InvalidArgumentError(absl::StrCat("sequence_length: ", options.sequence_length, " is below 1"));
  }
  TY_ASSIGN_OR_RETURN(DatasetInfo info, ReadDatasetInfo(options.directory));
  if (info.vocab_size > options.vocab_size) {
    return absl::FailedPreconditionError(absl::StrCat(options.directory, ": the dataset's vocabulary has ",
                                                      info.vocab_size, " tokens, the model's only ",
                                                      options.vocab_size));
  }
  Loader loader(options, std::move(info));
  TY_ASSIGN_OR_RETURN(loader.train_, loader.OpenWindows(Split::kTrain));
  TY_ASSIGN_OR_RETURN(loader.validation_, loader.OpenWindows(Split::kValidation));
  if (loader.train_.window_count == 0) {
    return absl::FailedPreconditionError(
        absl::StrCat(options.directory, ": the train split has ", loader.info_.TokenCount(Split::kTrain), " tokens in ",
                     loader.train_.shards.size(), " shards; none has the ", options.sequence_length + 1,
                     " that one window of sequence_length ", options.sequence_length, " takes"));
  }
  return loader;
}

absl::StatusOr<Loader::Windows> Loader::OpenWindows(Split split) const {
  Windows windows;
  TY_ASSIGN_OR_RETURN(windows.shards, OpenShards(options_.directory, info_, split));
  windows.first_window.push_back(0);
  for (const TokenShard& shard : windows.shards) {
    windows.window_count += std::max<int64_t>(0, shard.info().token_count - 1) / options_.sequence_length;
    windows.first_window.push_back(windows.window_count);
  }
  return windows;
}

int64_t Loader::RowCount(const kernels::TensorView& tokens, const kernels::TensorView& targets) const {
  TY_CHECK(tokens.dtype() == kernels::DType::kI32);
  TY_CHECK(targets.dtype() == kernels::DType::kI32);
  TY_CHECK_EQ(tokens.size(), targets.size());
  TY_CHECK_EQ(tokens.size() % options_.sequence_length, 0);
  if (tokens.rank() > 1) TY_CHECK_EQ(tokens.dim(tokens.rank() - 1), options_.sequence_length);
  return tokens.size() / options_.sequence_length;
}

absl::Status Loader::CopyWindow(const Windows& windows, int64_t window, int32_t* tokens, int32_t* targets) const {
  const auto next = std::upper_bound(windows.first_window.begin(), windows.first_window.end(), window);
  const size_t index = static_cast<size_t>(next - windows.first_window.begin()) - 1;
  const TokenShard& shard = windows.shards[index];
  const int64_t length = options_.sequence_length;
  const int64_t begin = (window - windows.first_window[index]) * length;
  const int32_t largest_token = shard.Copy(begin, length, tokens);
  std::memcpy(targets, tokens + 1, static_cast<size_t>(length - 1) * sizeof(int32_t));
  const int32_t last_token = shard.Copy(begin + length, 1, targets + length - 1);
  const int32_t largest = std::max(largest_token, last_token);
  if (largest >= options_.vocab_size) {
    return absl::DataLossError(absl::StrCat(shard.path(), ": token ", largest, " between ", begin, " and ",
                                            begin + length, " is not below the vocabulary of ", options_.vocab_size));
  }
  return absl::OkStatus();
}

absl::Status Loader::Next(const kernels::TensorView& tokens, const kernels::TensorView& targets) {
  const int64_t rows = RowCount(tokens, targets);
  const int64_t length = options_.sequence_length;
  const int64_t windows = train_.window_count;
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t sample = position_.next_sample + options_.rank * rows + row;
    const Permutation permutation(windows, options_.seed, static_cast<uint32_t>(position_.epoch + sample / windows));
    TY_RETURN_IF_ERROR(CopyWindow(train_, permutation(sample % windows), tokens.as<int32_t>() + row * length,
                                  targets.as<int32_t>() + row * length));
  }
  const int64_t end = position_.next_sample + options_.world_size * rows;
  position_ = {.epoch = position_.epoch + end / windows, .next_sample = end % windows};
  return absl::OkStatus();
}

absl::Status Loader::Restore(const LoaderPosition& position) {
  if (position.epoch < 0 || position.next_sample < 0 || position.next_sample >= train_.window_count) {
    return absl::OutOfRangeError(absl::StrCat(
        "loader position: epoch ", position.epoch, ", sample ", position.next_sample, " is not in a dataset of ",
        train_.window_count, " windows of ", options_.sequence_length, " tokens (", options_.directory, ")"));
  }
  position_ = position;
  return absl::OkStatus();
}

absl::StatusOr<int64_t> Loader::Validation(int64_t first, const kernels::TensorView& tokens,
                                           const kernels::TensorView& targets) const {
  TY_CHECK_GE(first, 0);
  const int64_t rows = RowCount(tokens, targets);
  const int64_t length = options_.sequence_length;
  const int64_t real = std::clamp<int64_t>(validation_.window_count - first, 0, rows);
  for (int64_t row = 0; row < real; ++row) {
    TY_RETURN_IF_ERROR(CopyWindow(validation_, first + row, tokens.as<int32_t>() + row * length,
                                  targets.as<int32_t>() + row * length));
  }
  std::fill(tokens.as<int32_t>() + real * length, tokens.as<int32_t>() + rows * length, 0);
  std::fill(targets.as<int32_t>() + real * length, targets.as<int32_t>() + rows * length, kIgnoredTarget);
  return real;
}

std::string Loader::Fingerprint() const {
  return DigestOf(absl::StrCat(info_.Fingerprint(), " ", options_.sequence_length, " ", options_.seed));
}

}  // namespace trainyard::data
