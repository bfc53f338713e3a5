#include "kernels/core/simt/late_copies.h"

#include "gtest/gtest.h"
#include "kernels/core/simt/waits.h"

namespace trainyard::simt {
namespace {

// One stream of kernels and two of copies.
class LateCopiesTest : public ::testing::Test {
 protected:
  ~LateCopiesTest() override {
    for (void* stream : {kernels_, first_, second_}) {
      if (stream != nullptr) DestroyStream(stream);
    }
  }
  static void Copy(void* stream, int& to, const int& from) { EnqueueCopy(stream, &to, &from, sizeof(int)); }

  void* kernels_ = CreateStream(StreamKind::kKernels);
  void* first_ = CreateStream(StreamKind::kCopies);
  void* second_ = CreateStream(StreamKind::kCopies);
  int a_ = 1, b_ = 2, c_ = 3;
};

TEST_F(LateCopiesTest, ACopyRunsWhenSomebodyIsToComeAfterIt) {
  const int64_t before = CopiedBytes();
  Copy(first_, b_, a_);
  a_ = 7;  // a kernel that did not wait
  EXPECT_EQ(b_, 2);
  OrderStreams(kernels_, second_);
  EXPECT_EQ(b_, 2);
  OrderStreams(kernels_, first_);
  EXPECT_EQ(b_, 7);
  EXPECT_EQ(CopiedBytes() - before, static_cast<int64_t>(sizeof(int)));
}

TEST_F(LateCopiesTest, CopiesOfAStreamRunInOrder) {
  Copy(first_, b_, a_);
  Copy(first_, c_, b_);
  FinishStream(first_);
  EXPECT_EQ(c_, 1);
}

TEST_F(LateCopiesTest, AnOrderOfTwoStreamsHolds) {
  Copy(first_, b_, a_);
  OrderStreams(second_, first_);
  Copy(second_, c_, b_);
  Copy(first_, a_, c_);  // later than what the second stream comes after
  EXPECT_EQ(c_, 3);
  FinishStream(second_);
  EXPECT_EQ(c_, 1);
  EXPECT_EQ(a_, 1);
  FinishAllStreams();
  EXPECT_EQ(a_, 1);
}

// Without the order above, the second stream's copy would find what the first has not brought yet.
TEST_F(LateCopiesTest, AForgottenOrderShows) {
  Copy(first_, b_, a_);
  Copy(second_, c_, b_);
  OrderStreams(kernels_, second_);
  EXPECT_EQ(c_, 2);
}

TEST_F(LateCopiesTest, AStreamThatGoesAwayFinishes) {
  Copy(first_, b_, a_);
  OrderStreams(second_, first_);
  Copy(second_, c_, b_);
  DestroyStream(first_);
  first_ = nullptr;
  EXPECT_EQ(b_, 1);
  FinishStream(second_);
  EXPECT_EQ(c_, 1);
}

}  // namespace
}  // namespace trainyard::simt
