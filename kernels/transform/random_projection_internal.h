#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/core/philox.h"
#include "kernels/transform/random_projection.h"

namespace trainyard::kernels::internal {

struct ProjectionArgs {
  RandomProjection::Kind kind = RandomProjection::Kind::kNone;
  PhiloxKey key;  // of the signs: bit i % 32 of word i / 32, for Rademacher of row j of words_a_row() words
  int64_t length = 0, padded = 0, outputs = 0;
  const uint32_t* rows = nullptr;  // (outputs), Hadamard
  const float* x = nullptr;
  float* scratch = nullptr;
  float* out = nullptr;

  int64_t words_a_row() const { return (length + 31) / 32; }
  double rademacher_scale() const { return 1 / std::sqrt(static_cast<double>(outputs)); }
  float hadamard_scale() const {
    return static_cast<float>(std::sqrt(static_cast<double>(padded) / static_cast<double>(outputs)));
  }
};
void ProjectCpu(const ProjectionArgs& args, Stream& stream);
void ProjectCuda(const ProjectionArgs& args, Stream& stream);

void WalshHadamardCpu(float* data, int64_t size, Stream& stream);
void WalshHadamardCuda(float* data, int64_t size, Stream& stream);

}  // namespace trainyard::kernels::internal
