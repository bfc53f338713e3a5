// The bytes a rank publishes: who it is, and where each of its peers finds it on each channel. A pure format:
// little-endian numbers and length-prefixed strings behind a magic.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "worker/comm/rendezvous.h"

namespace trainyard::comm {

struct AddressBlob {
  CommunicatorTag tag;
  int rank = 0;
  int world_size = 1;
  // channels[c][r]: the socket that waits for rank r on channel c; empty for the rank itself.
  std::vector<std::vector<std::string>> channels;
};

std::string EncodeAddressBlob(const AddressBlob& blob);

// InvalidArgument for bytes that are no such blob (cut, too long, of another version).
absl::StatusOr<AddressBlob> DecodeAddressBlob(absl::string_view bytes);

// OK if `blob` is rank `rank`'s of this tag and world; else Aborted with both.
absl::Status CheckAddressBlob(const AddressBlob& blob, const CommunicatorTag& tag, int rank, int world_size);

}  // namespace trainyard::comm
