#include "worker/train/scatter_plot.h"

#include <limits>

#include "gtest/gtest.h"

namespace trainyard::train {
namespace {

TEST(ScatterPlot, PutsPointsWhereTheyAreAndDropsStrangers) {
  // Seen: the square of 1.25 * 0.8 = 1.
  std::vector<float> real = {0.8f, 0, -0.5f, 0.5f};
  std::vector<float> generated = {0, 0, 9, 9, std::numeric_limits<float>::quiet_NaN(), 0};
  const std::vector<float> pixels = ScatterPlot(kernels::TensorView(real.data(), kernels::DType::kF32, {2, 2}),
                                                kernels::TensorView(generated.data(), kernels::DType::kF32, {3, 2}));
  const auto at = [&](size_t channel, size_t row, size_t column) {
    return pixels[(channel * kScatterExtent + row) * kScatterExtent + column];
  };
  EXPECT_EQ(at(0, 128, 230), 1);  // (0.8, 0): column 0.9 * 256
  EXPECT_EQ(at(0, 64, 64), 1);    // (-0.5, 0.5): upper left
  EXPECT_EQ(at(1, 128, 128), 1);
  int lit = 0;
  for (const float pixel : pixels) lit += pixel == 1 ? 1 : 0;
  EXPECT_EQ(lit, 3);
}

}  // namespace
}  // namespace trainyard::train
