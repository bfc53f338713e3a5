// Runs the ranks of a communicator as threads of the test, over either implementation.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/testing/status_matchers.h"
#include "worker/comm/communicator.h"
#include "worker/comm/local/local_communicator.h"
#include "worker/comm/rendezvous.h"

namespace trainyard::comm {

inline void RunThreads(int count, const std::function<void(int)>& body) {
  std::vector<std::thread> threads;
  for (int index = 0; index < count; ++index) threads.emplace_back([&body, index] { body(index); });
  for (std::thread& thread : threads) thread.join();
}

// Communicators over loopback sockets, every rank connecting from a thread of its own. Empty after a failure, which is
// reported to gtest.
inline std::vector<Communicators> ConnectOverGloo(int ranks, absl::Duration timeout) {
  std::vector<std::unique_ptr<Rendezvous>> rendezvous;
  std::vector<std::string> blobs;
  for (int rank = 0; rank < ranks; ++rank) {
    RendezvousOptions options;
    options.tag = {"job", 1, 7};
    options.rank = rank;
    options.world_size = ranks;
    options.connect_timeout = absl::Seconds(20);
    options.timeout = options.background_timeout = timeout;
    auto made = Rendezvous::Create(options);
    EXPECT_OK(made);
    if (!made.ok()) return {};
    blobs.push_back((*made)->LocalAddress());
    rendezvous.push_back(*std::move(made));
  }
  std::vector<Communicators> communicators(static_cast<size_t>(ranks));
  std::vector<absl::Status> statuses(static_cast<size_t>(ranks));
  RunThreads(ranks, [&](int rank) {
    const size_t r = static_cast<size_t>(rank);
    absl::StatusOr<Communicators> made = rendezvous[r]->Connect(blobs, 1);
    statuses[r] = made.status();
    if (made.ok()) communicators[r] = *std::move(made);
  });
  for (const absl::Status& status : statuses) {
    EXPECT_OK(status);
    if (!status.ok()) return {};
  }
  return communicators;
}

enum class Transport { kLocal, kGloo };

// One communicator a rank, in rank order.
inline std::vector<std::unique_ptr<Communicator>> MakeRanks(Transport transport, int ranks,
                                                            absl::Duration timeout = absl::Seconds(20)) {
  if (transport == Transport::kLocal) return MakeLocalCommunicators(ranks, {.timeout = timeout});
  std::vector<std::unique_ptr<Communicator>> made;
  for (Communicators& communicators : ConnectOverGloo(ranks, timeout)) made.push_back(std::move(communicators.data));
  return made;
}

}  // namespace trainyard::comm
