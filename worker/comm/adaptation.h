// What an exchange changes about its codecs while it runs, each on a schedule of its own:
//
//   levels       fitted to the gradients of a step, all ranks' together (qoda.md 2.4)
//   bits         planned from the gradients that rank 0 has added up over the last steps (lgreco.h)
//   code tables  Huffman codes from how often each code occurs in a step, on all ranks
//
// During the steps concerned every rank looks at its gradients before they travel. When the step's buckets are done,
// the ranks send what they saw to rank 0, which decides and sends all settings, with the step from which they hold, to
// all: the next one. So all ranks change at the same step, and from a checkpoint the run goes on as it would have.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "absl/status/status.h"
#include "kernels/codec/level_histogram.h"
#include "worker/comm/communicator.h"
#include "worker/comm/exchange_parts.h"
#include "worker/comm/piece_coder.h"

namespace trainyard::comm {

// Steps at which levels are fitted: those listed, and every multiple of the interval.
bool IsRefitStep(const spec::LevelsCodec& codec, int64_t step);

// Of an interval's steps the last `window_steps` are added up; after the interval's last step there is a new plan.
bool IsInWindow(const spec::LgrecoOptions& plan, int64_t step);
bool IsPlanStep(const spec::LgrecoOptions& plan, int64_t step);

// Code tables are made at steps 0, 200, 1000, 5000, then every 10,000, and after the step that follows other changes.
bool IsCodeTableStep(int64_t step);

class Adaptation {
 public:
  explicit Adaptation(ExchangeParts* parts);

  // Whether anything is to be seen or decided in this step.
  void BeginStep(int64_t step);

  // Before the bucket is exchanged. `coder` gives gradient and feedback. What is looked at closely is looked at by the
  // host, which waits for the device.
  absl::Status Look(const std::vector<BucketTensor>& tensors, const PieceCoder& coder);

  // After all buckets; collective if something was due. True if codecs have changed.
  absl::StatusOr<bool> EndStep(Communicator& communicator, kernels::Stream& stream);

 private:
  void AddToWindow(const BucketTensor& tensor, kernels::Stream& stream);
  absl::Status SumOverRanks(Communicator& communicator);
  void Decide(kernels::Stream& stream);
  void PlanBits(kernels::Stream& stream);

  ExchangeParts& parts_;
  int64_t step_ = 0;
  bool fits_levels_ = false, adds_window_ = false, plans_bits_ = false, counts_codes_ = false;
  bool has_levels_ = false, has_huffman_ = false;
  std::map<CodecSet::GroupKey, kernels::LevelHistogram> histograms_;  // of this step, of adapted groups that are due
  std::map<CodecSet::GroupKey, std::vector<int64_t>> counts_;         // of this step
};

}  // namespace trainyard::comm
