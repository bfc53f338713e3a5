// Checks that the ranks are what each takes the others for.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "worker/comm/communicator.h"

namespace trainyard::comm {

struct ExchangeIdentity {
  uint64_t codec_version = 0;  // kCodecWireVersion
  uint64_t layout = 0;         // digest of tensors and buckets
  uint64_t settings = 0;       // digest of all that makes the bytes: codecs, types, exchange, seed
};

// Collective. FailedPrecondition, on every rank alike, names the first rank that differs from rank 0, and in what.
absl::Status AgreeOnExchange(Communicator& communicator, const ExchangeIdentity& own);

// Collective. DataLoss, on every rank alike, names the ranks whose hash differs from rank 0's.
absl::Status AgreeOnHash(Communicator& communicator, int64_t step, uint64_t own);

}  // namespace trainyard::comm
