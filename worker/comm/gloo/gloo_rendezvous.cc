// Rendezvous over gloo's TCP transport. A gloo pair listens on a socket of its own from its creation on, so all
// addresses exist before any peer is known; connecting needs only the peer's address of the matching pair.
#include <gloo/transport/context.h>
#include <gloo/transport/pair.h>
#include <gloo/transport/tcp/device.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <exception>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "base/digest.h"
#include "base/status_macros.h"
#include "worker/comm/gloo/address_blob.h"
#include "worker/comm/gloo/gloo_communicator.h"
#include "worker/comm/local/local_communicator.h"
#include "worker/comm/rendezvous.h"

namespace trainyard::comm {
namespace {

constexpr int kChannels = 3;  // data, control, background

// gloo waits this many times its context's timeout for a connection.
constexpr int kConnectTimeoutFactor = 5;

class GlooRendezvous final : public Rendezvous {
 public:
  explicit GlooRendezvous(const RendezvousOptions& options) : options_(options) {}

  ~GlooRendezvous() override {
    if (!connected_) ClosePairs();
  }

  absl::Status Listen() {
    AddressBlob blob;
    blob.tag = options_.tag;
    blob.rank = options_.rank;
    blob.world_size = options_.world_size;
    try {
      for (int c = 0; options_.world_size > 1 && c < kChannels; ++c) {
        gloo::transport::tcp::attr attr(options_.host.c_str());
        // An event loop, hence a thread, a channel: a large transfer on one does not delay the others.
        auto device = gloo::transport::tcp::CreateDevice(attr);
        auto context = device->createContext(options_.rank, options_.world_size);
        context->setTimeout(std::chrono::milliseconds(
            std::max<int64_t>(1, absl::ToInt64Milliseconds(options_.connect_timeout) / kConnectTimeoutFactor)));
        std::vector<std::string>& addresses = blob.channels.emplace_back();
        for (int peer = 0; peer < options_.world_size; ++peer) {
          if (peer == options_.rank) {
            addresses.emplace_back();
            continue;
          }
          const std::vector<char> bytes = context->createPair(peer)->address().bytes();
          addresses.emplace_back(bytes.begin(), bytes.end());
        }
        contexts_.push_back(std::move(context));
      }
    } catch (const std::exception& exception) {
      return absl::UnavailableError(absl::StrCat("cannot listen on ", options_.host, ": ", exception.what()));
    }
    address_ = EncodeAddressBlob(blob);
    return absl::OkStatus();
  }

  const std::string& LocalAddress() const override { return address_; }

  absl::StatusOr<Communicators> Connect(const std::vector<std::string>& blobs, uint64_t membership_epoch) override {
    if (static_cast<int>(blobs.size()) != options_.world_size) {
      return absl::InvalidArgumentError(absl::StrCat("the rank table has ", blobs.size(), " communicator addresses, ",
                                                     "the world has ", options_.world_size, " ranks"));
    }
    std::vector<AddressBlob> peers;
    for (int rank = 0; rank < options_.world_size; ++rank) {
      absl::StatusOr<AddressBlob> blob = DecodeAddressBlob(blobs[static_cast<size_t>(rank)]);
      if (!blob.ok()) return Annotate(blob.status(), absl::StrCat("rank ", rank));
      TY_RETURN_IF_ERROR(CheckAddressBlob(*blob, options_.tag, rank, options_.world_size));
      if (blob->channels.size() != contexts_.size()) {
        return absl::InvalidArgumentError(absl::StrCat("rank ", rank, ": communicator address of ",
                                                       blob->channels.size(), " channels, expected ",
                                                       contexts_.size()));
      }
      peers.push_back(*std::move(blob));
    }
    if (blobs[static_cast<size_t>(options_.rank)] != address_) {
      return absl::AbortedError(
          absl::StrCat("the rank table has another process as rank ", options_.rank, " of this attempt"));
    }
    if (options_.world_size == 1) {
      return Communicators{Alone(), Alone(), Alone()};
    }
    TY_RETURN_IF_ERROR(ConnectPairs(peers));
    TY_ASSIGN_OR_RETURN(Communicators communicators, Handshake(blobs, membership_epoch));
    connected_ = true;
    return communicators;
  }

  void Abort() override {
    aborted_ = true;
    ClosePairs();
  }

 private:
  std::unique_ptr<Communicator> Alone() const {
    return std::move(MakeLocalCommunicators(1, {.timeout = options_.timeout})[0]);
  }

  // All ranks go through channels and peers in one order, so the waits cannot form a circle.
  absl::Status ConnectPairs(const std::vector<AddressBlob>& peers) {
    const absl::Duration start = RealClock()->Monotonic();
    for (size_t c = 0; c < contexts_.size(); ++c) {
      for (int peer = 0; peer < options_.world_size; ++peer) {
        if (peer == options_.rank) continue;
        if (aborted_) return absl::AbortedError("rendezvous aborted");
        const std::string& address = peers[static_cast<size_t>(peer)].channels[c][static_cast<size_t>(options_.rank)];
        try {
          contexts_[c]->getPair(peer)->connect(std::vector<char>(address.begin(), address.end()));
        } catch (const std::exception& exception) {
          if (aborted_) return absl::AbortedError("rendezvous aborted");
          const std::string text = absl::StrCat("rank ", options_.rank, " cannot connect to rank ", peer, " of world ",
                                                options_.world_size, ": ", exception.what());
          // Rounding of the timeout to gloo's unit takes at most this many milliseconds.
          const bool late =
              RealClock()->Monotonic() - start + absl::Milliseconds(kConnectTimeoutFactor) >= options_.connect_timeout;
          if (late) return absl::DeadlineExceededError(text);
          return absl::UnavailableError(text);
        }
      }
    }
    if (aborted_) return absl::AbortedError("rendezvous aborted");
    return absl::OkStatus();
  }

  // Every channel compares epoch and table, which also shows that the sockets reached whom they should.
  absl::StatusOr<Communicators> Handshake(const std::vector<std::string>& blobs, uint64_t membership_epoch) {
    Digest digest;
    for (const std::string& blob : blobs) digest.Update(blob.data(), blob.size());
    const std::string own =
        absl::StrCat("epoch ", absl::Dec(membership_epoch, absl::kZeroPad20), " table ", digest.Hex());
    const absl::Duration timeouts[kChannels] = {options_.timeout, options_.timeout, options_.background_timeout};
    std::unique_ptr<Communicator> communicators[kChannels];
    for (size_t c = 0; c < kChannels; ++c) {
      auto communicator = std::make_unique<GlooCommunicator>(contexts_[c], options_.connect_timeout);
      std::string all(own.size() * blobs.size(), '\0');
      TY_RETURN_IF_ERROR(communicator->AllGatherBytes(
          own.data(), std::vector<int64_t>(blobs.size(), static_cast<int64_t>(own.size())), all.data()));
      for (size_t rank = 0; rank < blobs.size(); ++rank) {
        const std::string theirs = all.substr(rank * own.size(), own.size());
        if (theirs != own) {
          return absl::AbortedError(
              absl::StrCat("rank ", rank, " has another rank table: ", theirs, ", rank ", options_.rank, " has ", own));
        }
      }
      communicator->set_timeout(timeouts[c]);
      communicators[c] = std::move(communicator);
    }
    return Communicators{std::move(communicators[0]), std::move(communicators[1]), std::move(communicators[2])};
  }

  void ClosePairs() {
    for (const auto& context : contexts_) {
      for (int peer = 0; peer < options_.world_size; ++peer) {
        if (peer == options_.rank) continue;
        try {
          context->getPair(peer)->close();
        } catch (const std::exception&) {
          // Closed already.
        }
      }
    }
  }

  const RendezvousOptions options_;
  std::vector<std::shared_ptr<gloo::transport::Context>> contexts_;
  std::string address_;
  std::atomic<bool> aborted_{false};
  bool connected_ = false;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Rendezvous>> Rendezvous::Create(const RendezvousOptions& options) {
  if (options.world_size < 1 || options.rank < 0 || options.rank >= options.world_size) {
    return absl::InvalidArgumentError(
        absl::StrCat("rank ", options.rank, " not in [0, ", options.world_size - 1, "] of the world"));
  }
  // gloo writes with writev, and a peer may be gone.
  std::signal(SIGPIPE, SIG_IGN);
  auto rendezvous = std::make_unique<GlooRendezvous>(options);
  TY_RETURN_IF_ERROR(rendezvous->Listen());
  return std::unique_ptr<Rendezvous>(std::move(rendezvous));
}

}  // namespace trainyard::comm
