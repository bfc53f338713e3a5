#include "worker/data/images/sample_source.h"

#include "base/check.h"

namespace trainyard::data {

int64_t SampleSource::sample_size() const {
  int64_t product = 1;
  for (int64_t extent : sample_shape()) product *= extent;
  return product;
}

void SampleSource::FillBatch(const BatchKey& key, const kernels::TensorView& samples,
                             const kernels::TensorView& labels) const {
  const int64_t size = sample_size();
  const int64_t rows = samples.size() / size;
  TY_CHECK_EQ(rows * size, samples.size());
  TY_CHECK_GE(key.step, 0);
  TY_CHECK_GE(key.rank, 0);
  TY_CHECK_LT(key.rank, key.world_size);
  float* values = samples.as<float>();
  int32_t* label = labels ? labels.as<int32_t>() : nullptr;
  if (label != nullptr) TY_CHECK_EQ(labels.size(), rows);
  const int64_t first = (key.step * key.world_size + key.rank) * rows;
  for (int64_t row = 0; row < rows; ++row) {
    Draw(key.seed, first + row, values + row * size, label == nullptr ? nullptr : label + row);
  }
}

void SampleSource::FillReference(int64_t first, const kernels::TensorView& samples,
                                 const kernels::TensorView& labels) const {
  const int64_t size = sample_size();
  const int64_t rows = samples.size() / size;
  TY_CHECK_EQ(rows * size, samples.size());
  TY_CHECK_GE(first, 0);
  float* values = samples.as<float>();
  int32_t* label = labels ? labels.as<int32_t>() : nullptr;
  if (label != nullptr) TY_CHECK_EQ(labels.size(), rows);
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t index = count() > 0 ? (first + row) % count() : first + row;
    Reference(index, values + row * size, label == nullptr ? nullptr : label + row);
  }
}

}  // namespace trainyard::data
