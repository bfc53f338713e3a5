#include "kernels/tangent/sequence_embedding.h"

#include <cmath>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/testing/all_near.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/testing/test_stream.h"

namespace trainyard::kernels {
namespace {

using testing::HostTensor;

Dual<float> View(const HostTensor& data, int64_t tangents, int64_t rows, int64_t cols) {
  return {static_cast<float*>(data.view().data()), tangents, rows, cols};
}

TEST(SequenceEmbeddingTest, TheLastTokensTangentsAreJoined) {
  testing::TestStream stream(1);
  for (const int64_t rows : {1, 4}) {
    const HostTensor states = HostTensor::Normal(DType::kF32, {3, rows, 5}, 1), out(DType::kF32, {10});
    LastTangents(View(states, 2, rows, 5), static_cast<float*>(out.view().data()), stream);
    for (int64_t k = 0; k < 2; ++k) {
      for (int64_t c = 0; c < 5; ++c) {
        EXPECT_EQ(out.as<float>()[k * 5 + c], states.as<float>()[((1 + k) * rows + rows - 1) * 5 + c]);
      }
    }
  }
}

// More columns than a block has threads. Weights that start at 0, or none, give another direction.
TEST(SequenceEmbeddingTest, PositionsWeighTheMean) {
  testing::TestStream stream(1);
  for (const int64_t cols : {1, 7, 300}) {
    const HostTensor states = HostTensor::Normal(DType::kF32, {2, 6, cols}, 2), out(DType::kF32, {cols});
    const HostTensor sums(DType::kF32, {2 * cols});
    PositionMean({.states = View(states, 1, 6, cols),
                  .sums = static_cast<double*>(sums.view().data()),
                  .out = static_cast<float*>(out.view().data())},
                 stream);
    std::vector<double> expected(static_cast<size_t>(cols));
    double square = 0;
    for (int64_t c = 0; c < cols; ++c) {
      for (int64_t row = 0; row < 6; ++row) {
        expected[static_cast<size_t>(c)] += static_cast<double>(row + 1) * double{states.as<float>()[row * cols + c]};
      }
      square += expected[static_cast<size_t>(c)] * expected[static_cast<size_t>(c)];
    }
    for (double& value : expected) value /= std::sqrt(square);
    EXPECT_THAT(out.ToDoubles(), testing::AllNear(expected, {.absolute = 1e-7, .relative = 1e-7}));
  }
}

TEST(SequenceEmbeddingTest, StatesOfZeroGiveZeros) {
  testing::TestStream stream(1);
  const HostTensor states(DType::kF32, {3, 4}), out = HostTensor::Filled(DType::kF32, {4}, 5), sums(DType::kF32, {8});
  PositionMean({.states = View(states, 0, 3, 4),
                .sums = static_cast<double*>(sums.view().data()),
                .out = static_cast<float*>(out.view().data())},
               stream);
  for (const double value : out.ToDoubles()) EXPECT_EQ(value, 0);
}

}  // namespace
}  // namespace trainyard::kernels
