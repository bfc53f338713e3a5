#include "worker/comm/bucket_layout.h"

#include "base/check.h"

namespace trainyard::comm {

int64_t GradientLayerSpec::elements() const {
  int64_t sum = 0;
  for (const GradientTensorSpec& tensor : tensors) sum += tensor.elements;
  return sum;
}

std::vector<Bucket> LayOutBuckets(const std::vector<GradientLayerSpec>& layers, int64_t element_bytes,
                                  int64_t bucket_bytes) {
  TY_CHECK_GE(element_bytes, 1);
  TY_CHECK_GE(bucket_bytes, 1);
  std::vector<Bucket> buckets;
  for (int layer = static_cast<int>(layers.size()) - 1; layer >= 0; --layer) {
    const int64_t elements = layers[static_cast<size_t>(layer)].elements();
    const bool fits = !buckets.empty() && (elements == 0 || buckets.back().elements == 0 ||
                                           (buckets.back().elements + elements) * element_bytes <= bucket_bytes);
    if (!fits) buckets.push_back({.first_layer = layer, .last_layer = layer, .elements = 0});
    buckets.back().first_layer = layer;
    buckets.back().elements += elements;
  }
  return buckets;
}

uint64_t LayoutDigest(const std::vector<GradientLayerSpec>& layers, const std::vector<Bucket>& buckets) {
  uint64_t hash = 0xCBF29CE484222325;  // FNV-1a over the numbers' bytes
  const auto add = [&](int64_t number) {
    for (int byte = 0; byte < 8; ++byte) {
      hash ^= static_cast<uint64_t>(number >> (8 * byte)) & 0xFF;
      hash *= 0x100000001B3;
    }
  };
  add(static_cast<int64_t>(layers.size()));
  for (const GradientLayerSpec& layer : layers) {
    add(static_cast<int64_t>(layer.tensors.size()));
    for (const GradientTensorSpec& tensor : layer.tensors) {
      add(tensor.elements);
      add(tensor.dims);
    }
  }
  add(static_cast<int64_t>(buckets.size()));
  for (const Bucket& bucket : buckets) {
    add(bucket.first_layer);
    add(bucket.last_layer);
    add(bucket.elements);
  }
  return hash;
}

}  // namespace trainyard::comm
