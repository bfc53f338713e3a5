#include "kernels/optim/low_rank_step.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/testing/all_near.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/testing/op_case.h"
#include "kernels/testing/test_stream.h"

namespace trainyard::kernels {
namespace {

using testing::AllNear;
using testing::HostTensor;
using testing::OpCase;

// Extents: rows, cols, rank.
class LowRankStepTest : public ::testing::TestWithParam<OpCase> {
 protected:
  int64_t rows() const { return GetParam().dim(0); }
  int64_t cols() const { return GetParam().dim(1); }
  int64_t rank() const { return GetParam().dim(2); }

  LowRankStepArgs Args(const HostTensor& weight, const HostTensor& product) const {
    return {.direction = {.x = x_, .y = y_},
            .weight = weight,
            .product = product,
            .lr = 0.01f,
            .scale = 1.5f,
            .weight_decay = 0.2f};
  }
  std::vector<double> Expected(std::vector<double> w) const {
    const std::vector<double> x = x_.ToDoubles(), y = y_.ToDoubles();
    for (int64_t i = 0; i < rows(); ++i) {
      for (int64_t j = 0; j < cols(); ++j) {
        double sum = 0;
        for (int64_t k = 0; k < rank(); ++k) {
          sum += x[static_cast<size_t>(i * rank() + k)] * y[static_cast<size_t>(k * cols() + j)];
        }
        double& value = w[static_cast<size_t>(i * cols() + j)];
        value -= 0.01 * (1.5 * sum + 0.2 * value);
      }
    }
    return w;
  }

  const HostTensor x_ = HostTensor::Normal(DType::kF32, {rows(), rank()}, 1);
  const HostTensor y_ = HostTensor::Normal(DType::kF32, {rank(), cols()}, 2);
};

TEST_P(LowRankStepTest, MatchesDoubleReference) {
  testing::TestStream stream(2);
  const HostTensor weight = HostTensor::Normal(GetParam().dtype, {rows(), cols()}, 3);
  const HostTensor product = HostTensor::Filled(DType::kF32, {rows(), cols()}, 99);
  const std::vector<double> expected = Expected(weight.ToDoubles());
  LowRankStep(Args(weight, product), stream);
  EXPECT_THAT(weight.ToDoubles(), AllNear(expected, testing::ToleranceFor(GetParam().dtype)));
}

TEST_P(LowRankStepTest, TransposedFactorIsTheSameMatrix) {
  testing::TestStream stream(2);
  HostTensor transposed(DType::kF32, {cols(), rank()});
  for (int64_t k = 0; k < rank(); ++k) {
    for (int64_t j = 0; j < cols(); ++j) transposed.as<float>()[j * rank() + k] = y_.as<float>()[k * cols() + j];
  }
  const HostTensor weight = HostTensor::Normal(DType::kF32, {rows(), cols()}, 3);
  const HostTensor product(DType::kF32, {rows(), cols()});
  LowRankStepArgs args = Args(weight, product);
  args.direction = {.x = x_, .y = transposed, .transpose_y = true};
  const std::vector<double> expected = Expected(weight.ToDoubles());
  LowRankStep(args, stream);
  EXPECT_THAT(weight.ToDoubles(), AllNear(expected, testing::ToleranceFor(DType::kF32)));
}

// The master moves, the weight is its rounded value: what the weight held before does not matter.
TEST_P(LowRankStepTest, MasterLeads) {
  testing::TestStream stream(1);
  const HostTensor master = HostTensor::Normal(DType::kF32, {rows(), cols()}, 3);
  const HostTensor weight = HostTensor::Filled(GetParam().dtype, {rows(), cols()}, 55);
  const HostTensor product(DType::kF32, {rows(), cols()});
  const std::vector<double> expected = Expected(master.ToDoubles());
  LowRankStepArgs args = Args(weight, product);
  args.master = master;
  LowRankStep(args, stream);
  EXPECT_THAT(master.ToDoubles(), AllNear(expected, testing::ToleranceFor(DType::kF32)));
  EXPECT_EQ(weight.ToDoubles(), HostTensor::Of(GetParam().dtype, {rows(), cols()}, master.ToDoubles()).ToDoubles());
}

TEST_P(LowRankStepTest, SameBitsForAnyThreadCount) {
  testing::ExpectSameBitsForAnyThreadCount([&](Stream& stream) {
    const HostTensor weight = HostTensor::Normal(GetParam().dtype, {rows(), cols()}, 3);
    const HostTensor product(DType::kF32, {rows(), cols()});
    LowRankStep(Args(weight, product), stream);
    return weight.Bytes();
  });
}

// Around the tiles of 192 rows and the blocks of 512 elements.
INSTANTIATE_TEST_SUITE_P(All, LowRankStepTest,
                         ::testing::ValuesIn(testing::OpCases({{1, 1, 1}, {5, 7, 3}, {191, 9, 4}, {400, 33, 16}})),
                         testing::OpCaseName);

}  // namespace
}  // namespace trainyard::kernels
