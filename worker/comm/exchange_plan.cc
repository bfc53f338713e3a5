#include "worker/comm/exchange_plan.h"

#include <algorithm>

#include "base/check.h"
#include "base/status_macros.h"
#include "worker/comm/allgather_reducer.h"
#include "worker/comm/plain_reducer.h"
#include "worker/comm/power_sgd_reducer.h"
#include "worker/comm/ring_reducer.h"
#include "worker/comm/scatter_reducer.h"
#include "worker/comm/sra_reducer.h"

namespace trainyard::comm {

std::vector<GradientLayerSpec> SpecsOf(const std::vector<GradientLayer>& layers) {
  std::vector<GradientLayerSpec> specs;
  for (const GradientLayer& layer : layers) {
    GradientLayerSpec& spec = specs.emplace_back();
    for (const GradientTensor& tensor : layer.tensors) spec.tensors.push_back({tensor.gradient.size(), tensor.dims});
  }
  return specs;
}

int64_t ElementBytes(const std::vector<GradientLayer>& layers) {
  const kernels::TensorView* first = nullptr;
  for (const GradientLayer& layer : layers) {
    for (const GradientTensor& tensor : layer.tensors) {
      if (first == nullptr) first = &tensor.gradient;
      TY_CHECK(tensor.gradient.dtype() == first->dtype());
    }
  }
  const kernels::DType dtype = first == nullptr ? kernels::DType::kF32 : first->dtype();
  TY_CHECK(dtype == kernels::DType::kF32 || dtype == kernels::DType::kBF16);
  return static_cast<int64_t>(kernels::SizeOf(dtype));
}

std::vector<std::vector<BucketTensor>> TensorsOf(const std::vector<GradientLayer>& layers,
                                                 const std::vector<Bucket>& buckets) {
  std::vector<int> first_index;
  int count = 0;
  for (const GradientLayer& layer : layers) {
    first_index.push_back(count);
    count += static_cast<int>(layer.tensors.size());
  }
  std::vector<std::vector<BucketTensor>> tensors;
  for (const Bucket& bucket : buckets) {
    std::vector<BucketTensor>& own = tensors.emplace_back();
    for (int layer = bucket.first_layer; layer <= bucket.last_layer; ++layer) {
      int index = first_index[static_cast<size_t>(layer)];
      for (const GradientTensor& tensor : layers[static_cast<size_t>(layer)].tensors) {
        if (tensor.gradient.size() > 0) own.push_back({index, tensor.gradient});
        ++index;
      }
    }
  }
  return tensors;
}

std::vector<Bucket> LayOutBuckets(const ExchangeOptions& options, const std::vector<GradientLayer>& layers) {
  const bool by_layer = options.scatter && options.scatter->by_layer;
  return LayOutBuckets(SpecsOf(layers), ElementBytes(layers), by_layer ? 1 : options.communication.bucket_bytes);
}

std::unique_ptr<BucketReducer> MakeReducer(const std::vector<BucketTensor>& tensors, ExchangeParts* parts,
                                           PieceCoder* coder) {
  const int ranks = parts->ranks(), rank = parts->rank();
  if (parts->options().scatter) {
    return std::make_unique<ScatterReducer>(tensors, *parts->options().scatter, ranks, rank);
  }
  if (parts->power_sgd() != nullptr) return std::make_unique<PowerSgdReducer>(tensors, parts, coder);
  const bool is_plain = std::none_of(tensors.begin(), tensors.end(), [&](const BucketTensor& tensor) {
    return parts->codecs().is_coded(tensor.index);
  });
  if (is_plain) return std::make_unique<PlainReducer>(tensors, coder, ranks, rank);
  switch (parts->options().communication.exchange) {
    case spec::ExchangeKind::kAllGather:
      return std::make_unique<AllGatherReducer>(tensors, coder, ranks, rank);
    case spec::ExchangeKind::kRing:
      return std::make_unique<RingReducer>(tensors, coder, ranks, rank);
    case spec::ExchangeKind::kSra:
      break;
  }
  return std::make_unique<SraReducer>(tensors, coder, ranks, rank);
}

absl::StatusOr<ExchangePlan> PlanExchange(const ExchangeOptions& options, const std::vector<GradientLayer>& layers,
                                          int rank, int ranks) {
  TY_ASSIGN_OR_RETURN(const std::unique_ptr<ExchangeParts> parts,
                      ExchangeParts::Make(options, layers, rank, ranks, /*has_memory=*/false));
  const int64_t element_bytes = ElementBytes(layers);
  const std::vector<Bucket> buckets = LayOutBuckets(options, layers);
  ExchangePlan plan;
  plan.buckets = static_cast<int64_t>(buckets.size());
  if (ranks == 1) return plan;
  plan.state_bytes = parts->bytes();
  PieceCoder coder(parts.get(), {});
  BufferNeeds needs;
  int64_t own_bytes = 0, elements = 0;
  const std::vector<std::vector<BucketTensor>> tensors = TensorsOf(layers, buckets);
  for (size_t b = 0; b < buckets.size(); ++b) {
    const std::unique_ptr<BucketReducer> reducer = MakeReducer(tensors[b], parts.get(), &coder);
    needs.Cover(reducer->Needs());
    const WireBytes bytes = reducer->BytesSent();
    plan.sent.phase1 += bytes.phase1;
    plan.sent.phase2 += bytes.phase2;
    const WireBytes uncoded = options.scatter ? bytes : AllReduceBytes(buckets[b].elements, element_bytes, ranks, rank);
    plan.uncoded_bytes += uncoded.phase1 + uncoded.phase2;
    elements += buckets[b].elements;
  }
  // A sum by all-reduce holds one piece of the own part from each peer.
  own_bytes = PartOf(needs.transport / element_bytes, ranks, rank).size() * element_bytes;
  plan.workspace_bytes = needs.sent + needs.received + needs.gathered +
                         static_cast<int64_t>(sizeof(float)) * (needs.values + needs.decoded + needs.sum) +
                         own_bytes * (ranks - 1);
  if (options.keeps_contribution) plan.workspace_bytes += elements * static_cast<int64_t>(sizeof(float));
  return plan;
}

}  // namespace trainyard::comm
