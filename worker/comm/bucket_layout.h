// Which gradients travel together: buckets of whole layers, in the order in which backward finishes them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace trainyard::comm {

struct GradientTensorSpec {
  int64_t elements = 0;
  int dims = 0;  // as the model has it: 1 for norm weights and biases, which codecs leave alone
};

// The tensors whose gradients become final together. Layers are numbered in forward order.
struct GradientLayerSpec {
  std::vector<GradientTensorSpec> tensors;
  int64_t elements() const;
};

struct Bucket {
  // Layers first_layer .. last_layer, both included.
  int first_layer = 0;
  int last_layer = 0;
  int64_t elements = 0;
};

// Goes through the layers from the last to the first and closes a bucket when the next layer would take it beyond
// `bucket_bytes` (>= 1) of `element_bytes` each; a layer longer than that is a bucket of its own. Layers without
// elements join their neighbours. Bucket 0 holds the last layers.
std::vector<Bucket> LayOutBuckets(const std::vector<GradientLayerSpec>& layers, int64_t element_bytes,
                                  int64_t bucket_bytes);

// 64 bits that differ when layers or buckets differ; ranks compare it before they exchange anything.
uint64_t LayoutDigest(const std::vector<GradientLayerSpec>& layers, const std::vector<Bucket>& buckets);

}  // namespace trainyard::comm
