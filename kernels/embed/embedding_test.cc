#include "kernels/embed/embedding.h"

#include "gtest/gtest.h"
#include "kernels/testing/all_near.h"
#include "kernels/testing/finite_difference.h"
#include "kernels/testing/host_tensor.h"
#include "kernels/testing/op_case.h"
#include "kernels/testing/test_stream.h"

namespace trainyard::kernels {
namespace {

using testing::AllNear;
using testing::HostTensor;
using testing::OpCase;
using Values = std::vector<double>;

// Shape: rows, vocabulary, cols.
class EmbeddingTest : public ::testing::TestWithParam<OpCase> {
 protected:
  Values Forward(const Values& table) const {
    Values y;
    for (int64_t r = 0; r < rows_; ++r) {
      const auto row = table.begin() + tokens_.as<int32_t>()[r] * cols_;
      y.insert(y.end(), row, row + cols_);
    }
    return y;
  }

  const DType dtype_ = GetParam().dtype;
  const int64_t rows_ = GetParam().dim(0);
  const int64_t vocab_size_ = GetParam().dim(1);
  const int64_t cols_ = GetParam().dim(2);
  const HostTensor tokens_ = testing::RandomTokens(rows_, vocab_size_, 1);
  const HostTensor table_ = HostTensor::Normal(dtype_, {vocab_size_, cols_}, 2);
  const HostTensor dy_ = HostTensor::Normal(dtype_, {rows_, cols_}, 3);
  const HostTensor workspace_{DType::kU8, {EmbeddingBackwardWorkspaceBytes(rows_)}};
  testing::TestStream stream_{2};
};

TEST_P(EmbeddingTest, ForwardCopiesRows) {
  const HostTensor y = HostTensor::Filled(dtype_, {rows_, cols_}, 99);
  EmbeddingForward({.tokens = tokens_, .table = table_, .y = y}, stream_);
  EXPECT_EQ(y.ToDoubles(), Forward(table_.ToDoubles()));
}

TEST_P(EmbeddingTest, BackwardIsTheTransposeOfTheForward) {
  // The forward is linear in the table, so its differences at any point are exact up to rounding in double.
  Values expected(static_cast<size_t>(vocab_size_ * cols_), 0.5);  // accumulates
  const Values dy = dy_.ToDoubles();
  for (size_t i = 0; i < dy.size(); ++i) {
    const int64_t row = static_cast<int64_t>(i) / cols_;
    expected[static_cast<size_t>(tokens_.as<int32_t>()[row] * cols_ + static_cast<int64_t>(i) % cols_)] += dy[i];
  }
  if (expected.size() < 200) {
    Values table = table_.ToDoubles();
    const Values differences = testing::FiniteDifferences(table, [&] { return testing::Dot(dy, Forward(table)); });
    for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(differences[i] + 0.5, expected[i], 1e-7);
  }
  for (const DType gradient_dtype : {dtype_, DType::kF32}) {
    const HostTensor dtable = HostTensor::Filled(gradient_dtype, {vocab_size_, cols_}, 0.5);
    EmbeddingBackward({.tokens = tokens_, .dy = dy_, .dtable = dtable, .workspace = workspace_}, stream_);
    EXPECT_THAT(dtable.ToDoubles(), AllNear(expected, testing::ToleranceForSum(gradient_dtype, rows_)));
  }
}

TEST_P(EmbeddingTest, SameBitsForAnyThreadCount) {
  testing::ExpectSameBitsForAnyThreadCount([&](Stream& stream) {
    const HostTensor dtable(dtype_, {vocab_size_, cols_});
    EmbeddingBackward({.tokens = tokens_, .dy = dy_, .dtable = dtable, .workspace = workspace_}, stream);
    return dtable.Bytes();
  });
}

// {500, 3, 5}: runs longer than a hand-out of rows; {300, 5000, 3}: more than one radix digit; {70, 2, 264}: vectors,
// more columns than a warp takes; {4200, 1200, 8} and {2100, 20, 4}: several tiles of the device's sort, short and long
// runs.
INSTANTIATE_TEST_SUITE_P(All, EmbeddingTest,
                         ::testing::ValuesIn(testing::OpCases({{1, 1, 1},
                                                               {1, 7, 3},
                                                               {0, 4, 2},
                                                               {5, 3, 300},
                                                               {500, 3, 5},
                                                               {300, 5000, 3},
                                                               {70, 2, 264},
                                                               {4200, 1200, 8},
                                                               {2100, 20, 4}})),
                         testing::OpCaseName);

// Adding 2^-9 to 1 a thousand times in bf16 never moves it; the sum must be rounded once.
TEST(EmbeddingEdgeTest, SmallGradientsOfAFrequentTokenAreNotLost) {
  testing::TestStream stream(1);
  constexpr int64_t kRows = 1024;
  const HostTensor tokens(DType::kI32, {kRows});
  const HostTensor dy = HostTensor::Filled(DType::kBF16, {kRows, 1}, 1.0 / 512);
  const HostTensor dtable = HostTensor::Filled(DType::kBF16, {2, 1}, 1);
  const HostTensor workspace(DType::kU8, {EmbeddingBackwardWorkspaceBytes(kRows)});
  EmbeddingBackward({.tokens = tokens, .dy = dy, .dtable = dtable, .workspace = workspace}, stream);
  EXPECT_EQ(dtable.ToDoubles(), (Values{3, 1}));
}

TEST(EmbeddingDeathTest, TokenOutsideTheVocabulary) {
  testing::TestStream stream(1);
  const HostTensor tokens = HostTensor::Of(DType::kI32, {1}, {4});
  const HostTensor table(DType::kF32, {4, 2});
  const HostTensor y(DType::kF32, {1, 2});
  const HostTensor workspace(DType::kU8, {EmbeddingBackwardWorkspaceBytes(1)});
  ::testing::GTEST_FLAG(death_test_style) = "threadsafe";  // a device does not survive fork
  const auto forward = [&] {
    EmbeddingForward({.tokens = tokens, .table = table, .y = y}, stream);
    TY_CHECK_OK(stream.Synchronize());
  };
  const auto backward = [&] {
    EmbeddingBackward({.tokens = tokens, .dy = y, .dtable = table, .workspace = workspace}, stream);
    TY_CHECK_OK(stream.Synchronize());
  };
  EXPECT_DEATH(forward(), "4 vs 4|index < count");
  EXPECT_DEATH(backward(), "4 vs 4|index < count");
}

}  // namespace
}  // namespace trainyard::kernels
