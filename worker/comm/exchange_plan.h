// What an exchange will take, known before it runs: a pure function of layers, settings and ranks.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/comm/bucket_layout.h"
#include "worker/comm/bucket_reducer.h"
#include "worker/comm/exchange_parts.h"
#include "worker/comm/exchange_state.h"
#include "worker/comm/piece_coder.h"

namespace trainyard::comm {

struct ExchangePlan {
  int64_t buckets = 0;
  // Of one step of the rank, with the codecs of step 0: exact with codes of fixed length, the most with entropy coding;
  // of PowerSGD from start_step on. What has a schedule (levels, hashes) is not in it.
  WireBytes sent;
  int64_t uncoded_bytes = 0;    // what would be sent with identity
  int64_t workspace_bytes = 0;  // buffers, contributions and the transport's; grows if a bit plan wants more
  int64_t state_bytes = 0;      // ExchangeState::bytes
};

// The gradients' memory is not touched and need not exist. Errors as ExchangeState::Create.
absl::StatusOr<ExchangePlan> PlanExchange(const ExchangeOptions& options, const std::vector<GradientLayer>& layers,
                                          int rank, int ranks);

// ---- Shared with the exchange itself ----

std::vector<GradientLayerSpec> SpecsOf(const std::vector<GradientLayer>& layers);

// LayOutBuckets of bucket_layout.h, as the options want it.
std::vector<Bucket> LayOutBuckets(const ExchangeOptions& options, const std::vector<GradientLayer>& layers);

// Bytes of a gradient's element, the same for all: 4 or 2.
int64_t ElementBytes(const std::vector<GradientLayer>& layers);

// By bucket, in forward order; tensors without elements are left out.
std::vector<std::vector<BucketTensor>> TensorsOf(const std::vector<GradientLayer>& layers,
                                                 const std::vector<Bucket>& buckets);

std::unique_ptr<BucketReducer> MakeReducer(const std::vector<BucketTensor>& tensors, ExchangeParts* parts,
                                           PieceCoder* coder);

}  // namespace trainyard::comm
