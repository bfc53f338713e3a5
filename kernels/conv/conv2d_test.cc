#include "kernels/conv/conv2d.h"

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
using Values = std::vector<double>;

// The definition, position by position.
template <typename Visit>
void ForTaps(const ConvGeometry& g, const Visit& visit) {
  const auto at = [](int64_t i) { return static_cast<size_t>(i); };
  for (int64_t n = 0; n < g.batch; ++n)
    for (int64_t f = 0; f < g.filters; ++f)
      for (int64_t i = 0; i < g.grid_height(); ++i)
        for (int64_t j = 0; j < g.grid_width(); ++j)
          for (int64_t c = 0; c < g.channels; ++c)
            for (int64_t a = 0; a < g.kernel_height; ++a)
              for (int64_t b = 0; b < g.kernel_width; ++b) {
                const int64_t y = i * g.stride + a - g.padding;
                const int64_t x = j * g.stride + b - g.padding;
                if (y < 0 || y >= g.height || x < 0 || x >= g.width) continue;
                visit(at(((n * g.channels + c) * g.height + y) * g.width + x),
                      at(((n * g.filters + f) * g.grid_height() + i) * g.grid_width() + j),
                      at(((f * g.channels + c) * g.kernel_height + a) * g.kernel_width + b));
              }
}

Values Spread(const Values& bias, int64_t batch, int64_t pixels) {
  Values out;
  for (int64_t n = 0; n < batch; ++n) {
    for (double value : bias) out.insert(out.end(), static_cast<size_t>(pixels), value);
  }
  return out;
}

struct NamedGeometry {
  const char* name;
  ConvGeometry geometry;
};

class Conv2dTest : public ::testing::TestWithParam<NamedGeometry> {
 protected:
  Values Grid(const Values& image, const Values& w, const Values& start) const {
    Values grid = start;
    ForTaps(g_, [&](size_t x, size_t y, size_t k) { grid[y] += w[k] * image[x]; });
    return grid;
  }
  HostTensor Workspace(int threads) const { return HostTensor(DType::kU8, {ConvWorkspaceBytes(g_, threads)}); }

  const ConvGeometry g_ = GetParam().geometry;
  const int64_t pixels_ = g_.grid_height() * g_.grid_width();
  const HostTensor image_ = HostTensor::Normal(DType::kF32, {g_.image_size()}, 1);
  const HostTensor grid_ = HostTensor::Normal(DType::kF32, {g_.grid_size()}, 2);
  const HostTensor w_ = HostTensor::Normal(DType::kF32, {g_.weight_size()}, 3);
  const HostTensor filter_bias_ = HostTensor::Normal(DType::kF32, {g_.filters}, 4);
  const HostTensor channel_bias_ = HostTensor::Normal(DType::kF32, {g_.channels}, 5);
  const int64_t depth_ = g_.channels * g_.kernel_height * g_.kernel_width;
  testing::TestStream stream_{2};
};

TEST_P(Conv2dTest, ForwardMatchesTheDefinition) {
  const HostTensor workspace = Workspace(2);
  const HostTensor grid = HostTensor::Filled(DType::kF32, {g_.grid_size()}, 99);
  ImageToGrid({.geometry = g_, .image = image_, .w = w_, .bias = filter_bias_, .grid = grid, .workspace = workspace},
              stream_);
  const Values bias = Spread(filter_bias_.ToDoubles(), g_.batch, pixels_);
  const Values expected = Grid(image_.ToDoubles(), w_.ToDoubles(), bias);
  EXPECT_THAT(grid.ToDoubles(), AllNear(expected, testing::ToleranceForSum(DType::kF32, 4 * depth_)));

  const HostTensor added = grid_.Copy();
  ImageToGrid({.geometry = g_, .image = image_, .w = w_, .grid = added, .accumulate = true, .workspace = workspace},
              stream_);
  EXPECT_THAT(added.ToDoubles(), AllNear(Grid(image_.ToDoubles(), w_.ToDoubles(), grid_.ToDoubles()),
                                         testing::ToleranceForSum(DType::kF32, 4 * depth_)));
}

TEST_P(Conv2dTest, TransposeMatchesTheDefinition) {
  const HostTensor workspace = Workspace(1);
  const auto tolerance = testing::ToleranceForSum(DType::kF32, 4 * g_.filters * g_.kernel_height * g_.kernel_width);
  for (const bool accumulate : {false, true}) {
    const HostTensor image = accumulate ? image_.Copy() : HostTensor::Filled(DType::kF32, {g_.image_size()}, 99);
    GridToImage({.geometry = g_,
                 .grid = grid_,
                 .w = w_,
                 .bias = channel_bias_,
                 .image = image,
                 .accumulate = accumulate,
                 .workspace = workspace},
                stream_);
    Values expected = Spread(channel_bias_.ToDoubles(), g_.batch, g_.height * g_.width);
    const Values start = image_.ToDoubles();
    const Values grid = grid_.ToDoubles();
    const Values w = w_.ToDoubles();
    for (size_t i = 0; accumulate && i < start.size(); ++i) expected[i] += start[i];
    ForTaps(g_, [&](size_t x, size_t y, size_t k) { expected[x] += w[k] * grid[y]; });
    EXPECT_THAT(image.ToDoubles(), AllNear(expected, tolerance));
  }
}

// The forward is linear in image and in w, so the differences are exact but for rounding. Independent of ForTaps' own
// adjoint.
TEST_P(Conv2dTest, GradientsMatchFiniteDifferences) {
  Values image = image_.ToDoubles();
  Values w = w_.ToDoubles();
  const Values dy = grid_.ToDoubles();
  const Values zero(dy.size(), 0.0);
  if (static_cast<double>(image.size() + w.size()) * static_cast<double>(dy.size() * static_cast<size_t>(depth_)) > 3e8)
    GTEST_SKIP() << "too large for differences; compared with the definition in the other tests";
  const auto loss = [&] { return testing::Dot(dy, Grid(image, w, zero)); };
  const HostTensor workspace = Workspace(2);
  const HostTensor dx = HostTensor::Filled(DType::kF32, {g_.image_size()}, 99);
  GridToImage({.geometry = g_, .grid = grid_, .w = w_, .image = dx, .workspace = workspace}, stream_);
  testing::Tolerance tolerance = testing::ToleranceForSum(DType::kF32, 4 * g_.grid_size());
  tolerance.absolute += 1e-7;
  EXPECT_THAT(dx.ToDoubles(), AllNear(testing::FiniteDifferences(image, loss), tolerance));
  const HostTensor dw = HostTensor::Filled(DType::kF32, {g_.weight_size()}, 99);
  ConvWeightGradient({.geometry = g_, .image = image_, .grid = grid_, .dw = dw, .workspace = workspace}, stream_);
  EXPECT_THAT(dw.ToDoubles(), AllNear(testing::FiniteDifferences(w, loss), tolerance));
}

TEST_P(Conv2dTest, WeightGradientMatchesTheDefinitionAndAccumulates) {
  const HostTensor workspace = Workspace(2);
  const HostTensor dw = w_.Copy();
  ConvWeightGradient(
      {.geometry = g_, .image = image_, .grid = grid_, .dw = dw, .accumulate = true, .workspace = workspace}, stream_);
  Values expected = w_.ToDoubles();
  const Values image = image_.ToDoubles();
  const Values grid = grid_.ToDoubles();
  ForTaps(g_, [&](size_t x, size_t y, size_t k) { expected[k] += grid[y] * image[x]; });
  EXPECT_THAT(dw.ToDoubles(), AllNear(expected, testing::ToleranceForSum(DType::kF32, 8 * g_.batch * pixels_)));
}

TEST_P(Conv2dTest, ChannelSumsAndPixelMeans) {
  const TensorView dy(grid_.view().data(), DType::kF32, {g_.batch, g_.filters, pixels_});
  const HostTensor db = filter_bias_.Copy();
  ChannelSums({.dy = dy, .db = db, .accumulate = true}, stream_);
  const HostTensor mean(DType::kF32, {g_.batch, g_.filters});
  PixelMeanForward({.x = dy, .y = mean}, stream_);
  const HostTensor spread(DType::kF32, {g_.batch, g_.filters, pixels_});
  PixelMeanBackward({.dy = mean, .dx = spread}, stream_);
  Values sums = filter_bias_.ToDoubles();
  Values means(static_cast<size_t>(g_.batch * g_.filters), 0.0);
  const Values values = grid_.ToDoubles();
  for (size_t i = 0; i < values.size(); ++i) {
    const size_t row = i / static_cast<size_t>(pixels_);
    means[row] += values[i] / static_cast<double>(pixels_);
    sums[row % static_cast<size_t>(g_.filters)] += values[i];
  }
  EXPECT_THAT(db.ToDoubles(), AllNear(sums, testing::ToleranceForSum(DType::kF32, g_.batch * pixels_)));
  EXPECT_THAT(mean.ToDoubles(), AllNear(means, testing::ToleranceFor(DType::kF32)));
  for (double& value : means) value /= static_cast<double>(pixels_);
  EXPECT_THAT(spread.ToDoubles(), AllNear(Spread(means, 1, pixels_), testing::ToleranceFor(DType::kF32)));
}

TEST_P(Conv2dTest, SameBitsForAnyThreadCount) {
  testing::ExpectSameBitsForAnyThreadCount([&](Stream& stream) {
    const HostTensor workspace = Workspace(stream.threads());
    const HostTensor grid(DType::kF32, {g_.grid_size()});
    const HostTensor image(DType::kF32, {g_.image_size()});
    const HostTensor dw(DType::kF32, {g_.weight_size()});
    ImageToGrid({.geometry = g_, .image = image_, .w = w_, .grid = grid, .workspace = workspace}, stream);
    GridToImage({.geometry = g_, .grid = grid_, .w = w_, .image = image, .workspace = workspace}, stream);
    ConvWeightGradient({.geometry = g_, .image = image_, .grid = grid_, .dw = dw, .workspace = workspace}, stream);
    std::vector<uint8_t> bytes = grid.Bytes();
    for (const HostTensor* tensor : {&image, &dw}) {
      const std::vector<uint8_t> more = tensor->Bytes();
      bytes.insert(bytes.end(), more.begin(), more.end());
    }
    return bytes;
  });
}

INSTANTIATE_TEST_SUITE_P(
    All, Conv2dTest,
    ::testing::Values(
        NamedGeometry{"one_pixel", {}},
        NamedGeometry{"one_by_one_stride_two",
                      {.batch = 3, .channels = 5, .height = 6, .width = 6, .filters = 4, .stride = 2}},
        NamedGeometry{"three_by_three", {2, 3, 7, 5, 4, 3, 3, 1, 1}},
        NamedGeometry{"three_by_three_stride_two", {2, 3, 8, 8, 4, 3, 3, 2, 1}},
        NamedGeometry{"four_by_four_stride_two", {5, 4, 8, 8, 3, 4, 4, 2, 1}},
        NamedGeometry{"odd_kernel_stride_three", {1, 2, 11, 9, 3, 5, 2, 3, 2}},
        NamedGeometry{"padding_beyond_the_image", {1, 1, 1, 2, 2, 3, 3, 1, 2}},
        // Several panels an image, the last of them short; then several images a panel, the last of them short.
        NamedGeometry{"large_image", {2, 2, 37, 33, 3, 3, 3, 1, 1}},
        NamedGeometry{"many_small_images", {37, 4, 4, 4, 6, 3, 3, 1, 1}}),
    [](const auto& info) { return info.param.name; });

// ConvTranspose2d(kernel 1, stride 2, output_padding 1) of PyTorch: every other pixel is the bias alone.
TEST(ConvTransposeTest, OutputPaddingAddsARowWithoutTaps) {
  testing::TestStream stream(1);
  const ConvGeometry g = {.channels = 1, .height = 4, .width = 4, .filters = 1, .stride = 2};
  ASSERT_EQ(g.grid_height(), 2);
  const HostTensor grid = HostTensor::Of(DType::kF32, {4}, {1, 2, 3, 4});
  const HostTensor w = HostTensor::Of(DType::kF32, {1}, {10});
  const HostTensor bias = HostTensor::Of(DType::kF32, {1}, {0.5});
  const HostTensor image(DType::kF32, {16});
  const HostTensor workspace(DType::kU8, {ConvWorkspaceBytes(g, 1)});
  GridToImage({.geometry = g, .grid = grid, .w = w, .bias = bias, .image = image, .workspace = workspace}, stream);
  EXPECT_EQ(image.ToDoubles(), (Values{10.5, .5, 20.5, .5, .5, .5, .5, .5, 30.5, .5, 40.5, .5, .5, .5, .5, .5}));
}

}  // namespace
}  // namespace trainyard::kernels
