// The state of an exchange, as the exchange itself sees it; for users it is exchange_state.h.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "worker/comm/codec_set.h"
#include "worker/comm/exchange_memory.h"
#include "worker/comm/exchange_state.h"

namespace trainyard::comm {

// A tensor by its place in forward order.
struct ExchangeTensor {
  std::string name;
  int64_t elements = 0;
  int dims = 2;
  int64_t rows = 0, cols = 0;  // first axis by the others
};

class ExchangeParts final : public ExchangeState {
 public:
  // With `has_memory` false the state has sizes only: for plans.
  static absl::StatusOr<std::unique_ptr<ExchangeParts>> Make(const ExchangeOptions& options,
                                                             const std::vector<GradientLayer>& layers, int rank,
                                                             int ranks, bool has_memory);

  const std::vector<NamedState>& local_state() const override { return local_; }
  const std::vector<NamedState>& replicated_state() const override { return replicated_; }
  std::string Text() const override { return codecs_->Text(); }
  absl::Status RestoreText(const std::string& text) override { return codecs_->Restore(text); }
  void Reset() override;
  int64_t bytes() const override { return bytes_; }

  const ExchangeOptions& options() const { return options_; }
  int rank() const { return rank_; }
  int ranks() const { return ranks_; }
  const std::vector<ExchangeTensor>& tensors() const { return tensors_; }
  CodecSet& codecs() const { return *codecs_; }

  // Null unless PowerSGD is the exchange.
  const spec::PowerSgdCodec* power_sgd() const;
  // Whether PowerSGD factorises the tensor: rank (rows + cols) min_compression < rows cols.
  bool IsFactorised(int tensor) const;

  // What the tensor's codec has lost so far and the next step adds; null where nothing is lost.
  float* feedback(int tensor) const { return feedback_[static_cast<size_t>(tensor)]; }
  // PowerSGD: Q' (rank, cols), row by row; null for tensors that are not factorised.
  float* factor(int tensor) const { return factors_[static_cast<size_t>(tensor)]; }
  // Rank 0 with a bit plan: sum of the gradients of the window; null for tensors without maxmin.
  float* window(int tensor) const { return windows_[static_cast<size_t>(tensor)]; }

 private:
  ExchangeParts(const ExchangeOptions& options, int rank, int ranks) : options_(options), rank_(rank), ranks_(ranks) {}
  void FillFactors();
  absl::StatusOr<float*> Allocate(const std::string& what, const ExchangeTensor& tensor, std::vector<int64_t> shape,
                                  bool is_local);

  const ExchangeOptions options_;
  const int rank_, ranks_;
  bool has_memory_ = true;
  std::vector<ExchangeTensor> tensors_;
  std::unique_ptr<CodecSet> codecs_;
  std::vector<ExchangeMemory> memory_;
  std::vector<float*> feedback_, factors_, windows_;  // by tensor
  std::vector<NamedState> local_, replicated_;
  int64_t bytes_ = 0;
  std::string first_text_;
};

}  // namespace trainyard::comm
