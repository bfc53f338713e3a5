// How the ranks of an attempt find each other without a store: each rank opens its listening sockets and describes them
// in a blob; the blobs travel through the coordinator, which commits them as the rank table; then all ranks connect.
//
//   auto rendezvous = Rendezvous::Create({...});         // before READY
//   ready.set_comm_address(rendezvous->LocalAddress());
//   ... START brings every rank's blob ...
//   auto communicators = rendezvous->Connect(blobs, start.membership_epoch());
//
// A blob carries the tag (job, attempt, fence), rank and world size; Connect refuses a table in which any of them is
// not as expected (Aborted: stale). After connecting, the ranks compare the membership epoch and a digest of the whole
// table, so ranks with different tables or epochs never train together.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "worker/comm/communicator.h"

namespace trainyard::comm {

struct CommunicatorTag {
  std::string job_uid;
  int32_t attempt = 0;
  uint64_t fence = 0;
};

// Three sequences over the same ranks, one for each thread that talks.
struct Communicators {
  std::unique_ptr<Communicator> data;        // gradients: the exchange's thread
  std::unique_ptr<Communicator> control;     // flags and scalars: the thread of the training loop
  std::unique_ptr<Communicator> background;  // checkpoint shard lists: the checkpoint writer's thread
};

struct RendezvousOptions {
  CommunicatorTag tag;
  int rank = 0;
  int world_size = 1;
  std::string host = "127.0.0.1";  // address of this host that the peers can reach; the sockets bind to it, port chosen
  absl::Duration connect_timeout = absl::Seconds(60);  // for the whole of Connect, about
  absl::Duration timeout = absl::Minutes(5);           // of one call on data and control
  absl::Duration background_timeout = absl::Hours(1);  // of one call on background: the others may still be writing
};

class Rendezvous {
 public:
  virtual ~Rendezvous() = default;

  // Opens the sockets. Makes the process ignore SIGPIPE, since gloo writes to sockets whose peer may have gone.
  // Unavailable if the host's address cannot be bound, InvalidArgument for a rank outside the world.
  static absl::StatusOr<std::unique_ptr<Rendezvous>> Create(const RendezvousOptions& options);

  // Opaque bytes for the other ranks.
  virtual const std::string& LocalAddress() const = 0;

  // blobs[r] is rank r's LocalAddress. Call once. InvalidArgument for a blob that is none, Aborted for a blob or a peer
  // of another attempt, fence, epoch or table, DeadlineExceeded if a peer does not join in time.
  virtual absl::StatusOr<Communicators> Connect(const std::vector<std::string>& blobs, uint64_t membership_epoch) = 0;

  // From any thread: a pending Connect returns Aborted. Communicators already made are not touched by their owner's
  // loss of this object, but they are by this call: their connections close.
  virtual void Abort() = 0;
};

}  // namespace trainyard::comm
