#include "worker/prune/task/bucket_networks.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/status_macros.h"
#include "kernels/core/dispatch.h"
#include "kernels/loss/cross_entropy.h"

namespace trainyard::prune {
namespace {

constexpr int64_t kShortest = 16;

}  // namespace

absl::StatusOr<BucketNetworks::Loaded> BucketNetworks::Load(absl::Span<const Document> documents) {
  TY_CHECK_LE(static_cast<int64_t>(documents.size()), options_.most_documents);
  int64_t longest = 0;
  for (const Document& document : documents) longest = std::max(longest, static_cast<int64_t>(document.size()));
  TY_CHECK_LE(longest, options_.sequence_length);
  // Halves of the sequence length, as long as they are worth it.
  int64_t length = options_.sequence_length;
  while (length / 2 >= longest && length / 2 >= kShortest) length /= 2;

  auto found = buckets_.find(length);
  if (found == buckets_.end()) {
    const model::NetworkOptions network_options{.batch = options_.most_documents,
                                                .seq = length,
                                                .dtype = options_.dtype,
                                                // losses are taken in chunks, logits one document at a time
                                                .head_chunks = 1024,
                                                .threads = stream_->threads()};
    kernels::Arena counting = kernels::Arena::CountOnly(stream_->device());
    model::Network(config_, network_options, scheme_, weights_, gradients_, counting);
    TY_ASSIGN_OR_RETURN(kernels::Arena arena, kernels::Arena::Reserve(counting));
    auto network = std::make_unique<model::Network>(config_, network_options, scheme_, weights_, gradients_, arena);
    network->Prepare(*stream_);
    found = buckets_.emplace(length, Bucket{std::move(arena), std::move(network)}).first;
  }
  Loaded loaded{found->second.network.get(), length, options_.most_documents * length, 0};
  kernels::WaitForDevice(*stream_);  // it may still be reading the last ones
  int32_t* const tokens = loaded.network->tokens().as<int32_t>();
  int32_t* const targets = loaded.network->targets().as<int32_t>();
  std::fill_n(tokens, loaded.rows, 0);
  std::fill_n(targets, loaded.rows, kernels::kIgnoreTarget);
  for (size_t i = 0; i < documents.size(); ++i) {
    const Document& document = documents[i];
    const int64_t first = static_cast<int64_t>(i) * length;
    std::copy(document.begin(), document.end(), tokens + first);
    std::copy(document.begin() + 1, document.end(), targets + first);
    loaded.positions += static_cast<int64_t>(document.size()) - 1;
  }
  return loaded;
}

}  // namespace trainyard::prune
