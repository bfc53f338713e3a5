#include "worker/train/scatter_plot.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace trainyard::train {

std::vector<float> ScatterPlot(const kernels::TensorView& real, const kernels::TensorView& generated) {
  TY_CHECK_EQ(real.dim(1), 2);
  TY_CHECK_EQ(generated.dim(1), 2);
  float extent = 0;
  for (int64_t i = 0; i < real.size(); ++i) {
    if (std::isfinite(real.as<float>()[i])) extent = std::max(extent, std::abs(real.as<float>()[i]));
  }
  extent = extent > 0 ? 1.25f * extent : 1.0f;

  constexpr size_t kPlane = static_cast<size_t>(kScatterExtent) * kScatterExtent;
  std::vector<float> pixels(3 * kPlane, -1.0f);
  const auto draw = [&](const kernels::TensorView& points, size_t channel) {
    for (int64_t i = 0; i < points.dim(0); ++i) {
      const float x = points.as<float>()[2 * i] / extent, y = points.as<float>()[2 * i + 1] / extent;
      if (!(std::abs(x) < 1 && std::abs(y) < 1)) continue;  // NaN too
      const auto column = static_cast<size_t>((x + 1) / 2 * static_cast<float>(kScatterExtent));
      const auto row = static_cast<size_t>((1 - y) / 2 * static_cast<float>(kScatterExtent));
      const size_t last = static_cast<size_t>(kScatterExtent) - 1;
      pixels[channel * kPlane + std::min(row, last) * kScatterExtent + std::min(column, last)] = 1.0f;
    }
  };
  draw(real, 0);
  draw(generated, 1);
  return pixels;
}

}  // namespace trainyard::train
