#include <algorithm>
#include <atomic>

#include "kernels/conv/conv2d_internal.h"
#include "kernels/core/dispatch.h"
#include "kernels/core/simd.h"
#include "kernels/gemm/sgemm.h"

namespace trainyard::kernels::internal {
namespace {

// The scratch of one thread.
struct Slot {
  float* columns;
  float* grid;
  float* planes;
};

// Calls body(task, slot) for tasks 0 .. count - 1, each with a slot nobody else uses at the time.
template <typename Body>
void ForTasks(int64_t count, const ConvGeometry& g, const ConvPanels& panels, float* slots, int64_t slot_count,
              Stream& stream, const Body& body) {
  std::atomic<int64_t> next{0};
  stream.pool().ParallelFor(std::min(slot_count, count), 1, [&](int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; ++s) {
      float* columns = slots + s * panels.slot_floats(g);
      float* grid = columns + panels.column_floats();
      const Slot slot = {columns, grid, grid + panels.grid_floats(g)};
      for (int64_t task = next++; task < count; task = next++) body(task, slot);
    }
  });
}

// Slots that fit into the workspace beside the partial sums, which come first.
int64_t SlotCount(const ConvGeometry& g, const ConvPanels& panels, const TensorView& workspace, const Stream& stream) {
  const int64_t floats = workspace.bytes() / static_cast<int64_t>(sizeof(float)) - panels.parts * panels.part_floats(g);
  return std::clamp<int64_t>(floats / std::max<int64_t>(panels.slot_floats(g), 1), 1, stream.threads());
}

// The panels of group `group`, in order.
template <typename Body>
void ForPanels(const ConvGeometry& g, const ConvPanels& panels, int64_t group, const Body& body) {
  const int64_t image = group * panels.images;
  const int64_t images = std::min(panels.images, g.batch - image);
  for (int64_t row = 0; row < g.grid_height(); row += panels.rows) {
    body(PanelRange{image, images, row, std::min(panels.rows, g.grid_height() - row)});
  }
}

// The grid of a range as a matrix (filters, columns): rows of `data`, `stride` apart.
template <typename T>
struct GridPanel {
  T* data;
  int64_t stride;
};

// Of one image, a range of grid rows already is such a matrix; of several, it is gathered.
GridPanel<const float> GatherGrid(const ConvGeometry& g, const ConvPanels& panels, const PanelRange& range,
                                  const float* grid, const Slot& slot) {
  if (panels.images == 1) {
    return {grid + range.image * g.filters * panels.pixels + range.row * g.grid_width(), panels.pixels};
  }
  const int64_t columns = range.images * panels.pixels;
  for (int64_t n = 0; n < range.images; ++n) {
    const float* from = grid + (range.image + n) * g.filters * panels.pixels;
    for (int64_t f = 0; f < g.filters; ++f) {
      std::copy_n(from + f * panels.pixels, panels.pixels, slot.grid + f * columns + n * panels.pixels);
    }
  }
  return {slot.grid, columns};
}

TY_SIMD void AddScalar(float* y, int64_t count, float value) {
  for (int64_t i = 0; i < count; ++i) y[i] += value;
}

TY_SIMD void StoreSum(const float* x, float* y, int64_t count, float value, bool accumulate) {
  if (accumulate) {
#pragma GCC ivdep
    for (int64_t i = 0; i < count; ++i) y[i] += x[i] + value;
  } else {
#pragma GCC ivdep
    for (int64_t i = 0; i < count; ++i) y[i] = x[i] + value;
  }
}

TY_SIMD void SumParts(const float* parts, int64_t stride, int64_t count, int64_t size, bool accumulate, float* out) {
  constexpr int64_t kBlock = 1024;
  for (int64_t first = 0; first < size; first += kBlock) {
    const int64_t last = std::min(size, first + kBlock);
    for (int64_t p = 0; p < count; ++p) {
      const float* part = parts + p * stride;
      if (p == 0 && !accumulate) {
#pragma GCC ivdep
        for (int64_t i = first; i < last; ++i) out[i] = part[i];
      } else {
#pragma GCC ivdep
        for (int64_t i = first; i < last; ++i) out[i] += part[i];
      }
    }
  }
}

// Sum of a row in kLanes partial sums, which are added in double.
TY_SIMD double RowSum(const float* x, int64_t count) {
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) lanes[lane] += x[i + lane];
  }
  for (int lane = 0; i < count; ++i, ++lane) lanes[lane] += x[i];
  double sum = 0;
  for (float lane : lanes) sum += static_cast<double>(lane);
  return sum;
}

constexpr int64_t kChannelGrain = 16;

}  // namespace

void ImageToGridCpu(const ImageToGridArgs& args, Stream& stream) {
  const ConvGeometry& g = args.geometry;
  const ConvPanels panels(g);
  const float* image = args.image.as<float>();
  const float* w = args.w.as<float>();
  const float* bias = args.bias ? args.bias.as<float>() : nullptr;
  float* grid = args.grid.as<float>();
  float* slots = static_cast<float*>(args.workspace.data());
  const auto run = [&](int64_t group, const Slot& slot) {
    ForPanels(g, panels, group, [&](const PanelRange& range) {
      Unfold(g, range, image, slot.columns, slot.planes);
      const int64_t columns = range.images * range.rows * g.grid_width();
      float* const own = grid + range.image * g.filters * panels.pixels + range.row * g.grid_width();
      const bool direct = panels.images == 1;
      SgemmArgs product;
      product.m = g.filters;
      product.n = columns;
      product.k = panels.depth;
      product.a = w;
      product.lda = panels.depth;
      product.b = slot.columns;
      product.ldb = columns;
      product.beta = direct && args.accumulate ? 1.0f : 0.0f;
      product.c = direct ? own : slot.grid;
      product.ldc = direct ? panels.pixels : columns;
      Sgemm(product);
      if (direct) {
        if (bias == nullptr) return;
        for (int64_t f = 0; f < g.filters; ++f) AddScalar(own + f * panels.pixels, columns, bias[f]);
        return;
      }
      for (int64_t n = 0; n < range.images; ++n) {
        for (int64_t f = 0; f < g.filters; ++f) {
          StoreSum(slot.grid + f * columns + n * panels.pixels, own + (n * g.filters + f) * panels.pixels,
                   panels.pixels, bias == nullptr ? 0.0f : bias[f], args.accumulate);
        }
      }
    });
  };
  ForTasks(panels.groups, g, panels, slots, SlotCount(g, panels, args.workspace, stream), stream, run);
}

void GridToImageCpu(const GridToImageArgs& args, Stream& stream) {
  const ConvGeometry& g = args.geometry;
  const ConvPanels panels(g);
  const float* grid = args.grid.as<float>();
  const float* w = args.w.as<float>();
  const float* bias = args.bias ? args.bias.as<float>() : nullptr;
  float* image = args.image.as<float>();
  float* slots = static_cast<float*>(args.workspace.data());
  const int64_t plane = g.height * g.width;
  const auto run = [&](int64_t group, const Slot& slot) {
    const int64_t first = group * panels.images;
    for (int64_t n = first; n < std::min(first + panels.images, g.batch); ++n) {
      for (int64_t c = 0; c < g.channels; ++c) {
        float* pixels = image + (n * g.channels + c) * plane;
        const float value = bias == nullptr ? 0.0f : bias[c];
        if (!args.accumulate) {
          std::fill_n(pixels, plane, value);
        } else if (bias != nullptr) {
          AddScalar(pixels, plane, value);
        }
      }
    }
    ForPanels(g, panels, group, [&](const PanelRange& range) {
      const int64_t columns = range.images * range.rows * g.grid_width();
      const GridPanel<const float> from = GatherGrid(g, panels, range, grid, slot);
      SgemmArgs product;
      product.transpose_a = true;
      product.m = panels.depth;
      product.n = columns;
      product.k = g.filters;
      product.a = w;
      product.lda = panels.depth;
      product.b = from.data;
      product.ldb = from.stride;
      product.c = slot.columns;
      product.ldc = columns;
      Sgemm(product);
      FoldAdd(g, range, slot.columns, image, slot.planes);
    });
  };
  ForTasks(panels.groups, g, panels, slots, SlotCount(g, panels, args.workspace, stream), stream, run);
}

void ConvWeightGradientCpu(const ConvWeightGradientArgs& args, Stream& stream) {
  const ConvGeometry& g = args.geometry;
  const ConvPanels panels(g);
  const float* image = args.image.as<float>();
  const float* grid = args.grid.as<float>();
  float* parts = static_cast<float*>(args.workspace.data());
  const int64_t part_floats = panels.part_floats(g);
  float* slots = parts + panels.parts * part_floats;
  const auto run = [&](int64_t part, const Slot& slot) {
    float* partial = parts + part * part_floats;
    bool is_first = true;
    for (int64_t group = part * panels.groups / panels.parts; group < (part + 1) * panels.groups / panels.parts;
         ++group) {
      ForPanels(g, panels, group, [&](const PanelRange& range) {
        Unfold(g, range, image, slot.columns, slot.planes);
        const int64_t columns = range.images * range.rows * g.grid_width();
        const GridPanel<const float> from = GatherGrid(g, panels, range, grid, slot);
        SgemmArgs product;
        product.transpose_b = true;
        product.m = g.filters;
        product.n = panels.depth;
        product.k = columns;
        product.a = from.data;
        product.lda = from.stride;
        product.b = slot.columns;
        product.ldb = columns;
        product.beta = is_first ? 0.0f : 1.0f;
        product.c = partial;
        product.ldc = panels.depth;
        Sgemm(product);
        is_first = false;
      });
    }
  };
  ForTasks(panels.parts, g, panels, slots, SlotCount(g, panels, args.workspace, stream), stream, run);
  float* dw = args.dw.as<float>();
  stream.pool().ParallelFor(g.weight_size(), 4096, [&](int64_t begin, int64_t end) {
    SumParts(parts + begin, part_floats, panels.parts, end - begin, args.accumulate, dw + begin);
  });
}

void ChannelSumsCpu(const ChannelSumsArgs& args, Stream& stream) {
  const float* dy = args.dy.as<float>();
  float* db = args.db.as<float>();
  const int64_t batch = args.dy.dim(0);
  const int64_t channels = args.dy.dim(1);
  const int64_t pixels = args.dy.dim(2);
  stream.pool().ParallelFor(channels, kChannelGrain, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      double sum = args.accumulate ? static_cast<double>(db[c]) : 0.0;
      for (int64_t n = 0; n < batch; ++n) sum += RowSum(dy + (n * channels + c) * pixels, pixels);
      db[c] = static_cast<float>(sum);
    }
  });
}

void PixelMeanForwardCpu(const PixelMeanArgs& args, Stream& stream) {
  const float* x = args.x.as<float>();
  float* y = args.y.as<float>();
  const int64_t pixels = args.x.dim(2);
  stream.pool().ParallelFor(args.y.size(), kChannelGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      y[i] = static_cast<float>(RowSum(x + i * pixels, pixels) / static_cast<double>(pixels));
    }
  });
}

void PixelMeanBackwardCpu(const PixelMeanBackwardArgs& args, Stream& stream) {
  const float* dy = args.dy.as<float>();
  float* dx = args.dx.as<float>();
  const int64_t pixels = args.dx.dim(2);
  const float scale = 1.0f / static_cast<float>(pixels);
  stream.pool().ParallelFor(args.dy.size(), kChannelGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) std::fill_n(dx + i * pixels, pixels, dy[i] * scale);
  });
}

}  // namespace trainyard::kernels::internal
