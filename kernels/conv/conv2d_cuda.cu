// The three products of a convolution without an unfolded image (tile_product.h): each reads image and grid where they
// are. Which elements a sum has, in which order, follows from the shape alone.
#include <algorithm>

#include "kernels/conv/conv2d_internal.h"
#include "kernels/conv/tile_product.h"
#include "kernels/core/block_reduce.h"
#include "kernels/core/launch.h"

namespace trainyard::kernels::internal {
namespace {

// ConvGeometry, and how positions and taps are numbered.
struct Shape {
  explicit Shape(const ConvGeometry& g)
      : batch(static_cast<int>(g.batch)),
        channels(static_cast<int>(g.channels)),
        height(static_cast<int>(g.height)),
        width(static_cast<int>(g.width)),
        filters(static_cast<int>(g.filters)),
        kernel_height(static_cast<int>(g.kernel_height)),
        kernel_width(static_cast<int>(g.kernel_width)),
        stride(static_cast<int>(g.stride)),
        padding(static_cast<int>(g.padding)),
        grid_height(static_cast<int>(g.grid_height())),
        grid_width(static_cast<int>(g.grid_width())),
        pixels(grid_height * grid_width),
        taps(kernel_height * kernel_width),
        depth(channels * taps),
        by_pixels(pixels),
        by_grid_width(grid_width),
        by_taps(taps),
        by_kernel_width(kernel_width) {
    // What is numbered by an int, with room for a tile beyond the end.
    constexpr int64_t kLimit = (int64_t{1} << 31) - 4096;
    TY_CHECK_LE(g.batch * g.height * g.width, kLimit);
    TY_CHECK_LE(g.batch * g.grid_height() * g.grid_width(), kLimit);
    TY_CHECK_LE(g.weight_size(), kLimit);
    TY_CHECK_LE(g.channels * g.height * g.width, kLimit);
    TY_CHECK_LE(g.filters * g.grid_height() * g.grid_width(), kLimit);
    TY_CHECK_LE(std::max({g.height, g.width}) + 2 * g.padding + g.stride, kLimit);
  }

  int batch, channels, height, width, filters, kernel_height, kernel_width, stride, padding;
  int grid_height, grid_width;
  int pixels;  // grid positions of an image
  int taps;
  int depth;  // (channel, kernel row, kernel column)
  Divisor by_pixels, by_grid_width, by_taps, by_kernel_width;
};

int TilesOf(int64_t extent) {
  return static_cast<int>((extent + kTileExtent - 1) / kTileExtent);
}

// A (channel, kernel row, kernel column).
struct Tap {
  int channel, row, col;
};
__device__ inline Tap TapOf(const Shape& s, int k) {
  Tap tap;
  int within;
  tap.channel = s.by_taps.Split(k, &within);
  tap.row = s.by_kernel_width.Split(within, &tap.col);
  return tap;
}

// A grid position, as what it sees of the image: 0 outside of it.
struct Window {
  __device__ Window(const Shape& s, int position, const float* images) {
    int pixel;
    int col;
    sample = s.by_pixels.Split(position, &pixel);
    const int row = s.by_grid_width.Split(pixel, &col);
    top = row * s.stride - s.padding;
    left = col * s.stride - s.padding;
    offset = pixel;
    image = images + int64_t{sample} * s.channels * s.height * s.width;
  }
  __device__ float At(const Shape& s, const Tap& tap) const {
    const int y = top + tap.row;
    const int x = left + tap.col;
    if (y < 0 || y >= s.height || x < 0 || x >= s.width) return 0;
    return image[(int64_t{tap.channel} * s.height + y) * s.width + x];
  }

  const float* image;
  int sample, offset;  // of the position in its grid
  int top, left;
};

// Rows: filters; columns: grid positions of the batch; depth: taps.
struct ImageToGridSource {
  static constexpr bool kBAlongDepth = false;
  __device__ ImageToGridSource(const Shape& s, const float* image, const float* w, int row, int col)
      : s_(s),
        w_(w),
        row_(row),
        is_there_(col + ElementOf<false>(0).line < s.batch * s.pixels),
        window_(s, is_there_ ? col + ElementOf<false>(0).line : 0, image) {}
  __device__ int first_k() const { return 0; }
  __device__ int end_k() const { return s_.depth; }
  __device__ float A(int, int line, int k) const {
    const int filter = row_ + line;
    return filter < s_.filters && k < s_.depth ? w_[int64_t{filter} * s_.depth + k] : 0.0f;
  }
  __device__ float B(int, int, int k) const { return is_there_ && k < s_.depth ? window_.At(s_, TapOf(s_, k)) : 0.0f; }

 private:
  const Shape& s_;
  const float* w_;
  int row_;
  bool is_there_;
  Window window_;  // of the one column that this thread reads
};

struct Epilogue {
  const float* bias;  // or null
  float* out;
  bool accumulate;
  __device__ void Store(int64_t at, int channel, float value) const {
    if (bias != nullptr) value += bias[channel];
    out[at] = accumulate ? out[at] + value : value;
  }
};

__global__ void ImageToGridKernel(Shape s, const float* image, const float* w, Epilogue epilogue) {
  const int row_tiles = (s.filters + kTileExtent - 1) / kTileExtent;
  const int columns = s.batch * s.pixels;
  const int64_t tiles = int64_t{row_tiles} * ((columns + kTileExtent - 1) / kTileExtent);
  for (int64_t t = blockIdx.x; t < tiles; t += gridDim.x) {
    const int row = static_cast<int>(t % row_tiles) * kTileExtent;
    const int col = static_cast<int>(t / row_tiles) * kTileExtent;
    float c[kThreadExtent][kThreadExtent];
    TileProduct(ImageToGridSource(s, image, w, row, col), c);
    ForThreadElements(c, [&](int r, int j, float value) {
      const int filter = row + r;
      const int position = col + j;
      if (filter >= s.filters || position >= columns) return;
      int pixel;
      const int sample = s.by_pixels.Split(position, &pixel);
      epilogue.Store((int64_t{sample} * s.filters + filter) * s.pixels + pixel, filter, value);
    });
  }
}

// Pixels whose (row + padding) and (column + padding) leave the same remainders by the stride meet the same taps: those
// whose row and column leave these remainders too. So each such class of pixels is a product of its own, without zeros
// for what does not meet.
struct PixelClass {
  __device__ PixelClass(const Shape& s, int number) : row_rest(number / s.stride), col_rest(number % s.stride) {
    first_row = FirstOf(s, row_rest);
    first_col = FirstOf(s, col_rest);
    rows = first_row < s.height ? (s.height - first_row + s.stride - 1) / s.stride : 0;
    cols = first_col < s.width ? (s.width - first_col + s.stride - 1) / s.stride : 0;
    tap_rows = row_rest < s.kernel_height ? (s.kernel_height - row_rest + s.stride - 1) / s.stride : 0;
    tap_cols = col_rest < s.kernel_width ? (s.kernel_width - col_rest + s.stride - 1) / s.stride : 0;
  }
  __device__ static int FirstOf(const Shape& s, int rest) {
    const int first = (rest - s.padding) % s.stride;
    return first < 0 ? first + s.stride : first;
  }
  __device__ int taps() const { return tap_rows * tap_cols; }
  // 1 if it has one tap more than the classes with the fewest, else 0.
  __device__ int more_rows(const Shape& s) const { return tap_rows > s.kernel_height / s.stride ? 1 : 0; }
  __device__ int more_cols(const Shape& s) const { return tap_cols > s.kernel_width / s.stride ? 1 : 0; }
  __device__ int size(const Shape& s) const { return s.batch * rows * cols; }

  int row_rest, col_rest;
  int first_row, first_col, rows, cols;  // its pixels: every stride-th
  int tap_rows, tap_cols;                // its taps: row_rest, row_rest + stride, ..
};

struct Pixel {
  __device__ Pixel(const Shape& s, const PixelClass& of, int number) {
    const int a_sample = of.rows * of.cols;
    sample = number / a_sample;
    row = of.first_row + number % a_sample / of.cols * s.stride;
    col = of.first_col + number % a_sample % of.cols * s.stride;
  }
  int sample, row, col;
};

// How many taps a class has along one axis is one of two numbers, so what divides by them is made by the host.
struct TapDivisors {
  TapDivisors(const ConvGeometry& g) {
    for (int more_rows = 0; more_rows < 2; ++more_rows) {
      for (int more_cols = 0; more_cols < 2; ++more_cols) {
        const int64_t rows = g.kernel_height / g.stride + more_rows;
        const int64_t cols = g.kernel_width / g.stride + more_cols;
        by_cols[more_cols] = Divisor(std::max<int64_t>(cols, 1));
        by_taps[2 * more_rows + more_cols] = Divisor(std::max<int64_t>(rows * cols, 1));
      }
    }
  }
  // Choices, not indices, so that all stays in registers.
  __device__ Divisor ByCols(int more_cols) const { return more_cols == 0 ? by_cols[0] : by_cols[1]; }
  __device__ Divisor ByTaps(int more_rows, int more_cols) const {
    const Divisor few = more_cols == 0 ? by_taps[0] : by_taps[1];
    const Divisor many = more_cols == 0 ? by_taps[2] : by_taps[3];
    return more_rows == 0 ? few : many;
  }

  Divisor by_cols[2], by_taps[4];
};

// Rows: channels; columns: pixels of the class; depth: (filter, tap).
struct GridToImageSource {
  static constexpr bool kBAlongDepth = false;
  __device__ GridToImageSource(const Shape& s, const PixelClass& of, const TapDivisors& divisors, const float* grids,
                               const float* w, int row, int col)
      : s_(s),
        of_(of),
        by_cols_(divisors.ByCols(of.more_cols(s))),
        by_taps_(divisors.ByTaps(of.more_rows(s), of.more_cols(s))),
        w_(w),
        row_(row),
        is_there_(col + ElementOf<false>(0).line < of.size(s)) {
    const Pixel pixel(s, of, is_there_ ? col + ElementOf<false>(0).line : 0);
    grid_row_ = (pixel.row + s.padding - of.row_rest) / s.stride;
    grid_col_ = (pixel.col + s.padding - of.col_rest) / s.stride;
    grid_ = grids + int64_t{pixel.sample} * s.filters * s.pixels;
  }
  __device__ int first_k() const { return 0; }
  __device__ int end_k() const { return s_.filters * of_.taps(); }
  __device__ float A(int, int line, int k) const {
    const int channel = row_ + line;
    if (channel >= s_.channels || k >= end_k()) return 0;
    const FilterTap at = FilterTapOf(k);
    const int kernel_row = of_.row_rest + at.row * s_.stride;
    const int kernel_col = of_.col_rest + at.col * s_.stride;
    return w_[(int64_t{at.filter} * s_.channels + channel) * s_.taps + kernel_row * s_.kernel_width + kernel_col];
  }
  __device__ float B(int, int, int k) const {
    if (!is_there_ || k >= end_k()) return 0;
    const FilterTap at = FilterTapOf(k);
    const int row = grid_row_ - at.row;
    const int col = grid_col_ - at.col;
    if (row < 0 || row >= s_.grid_height || col < 0 || col >= s_.grid_width) return 0;
    return grid_[int64_t{at.filter} * s_.pixels + row * s_.grid_width + col];
  }

 private:
  struct FilterTap {
    int filter, row, col;  // of the class's taps
  };
  __device__ FilterTap FilterTapOf(int k) const {
    FilterTap at;
    int tap;
    at.filter = by_taps_.Split(k, &tap);
    at.row = by_cols_.Split(tap, &at.col);
    return at;
  }

  const Shape& s_;
  const PixelClass& of_;
  const Divisor by_cols_, by_taps_;
  const float* w_;
  const float* grid_;
  int row_;
  bool is_there_;
  int grid_row_, grid_col_;
};

// pixel_tiles: enough for the largest class.
__global__ void GridToImageKernel(Shape s, TapDivisors divisors, int pixel_tiles, const float* grid, const float* w,
                                  Epilogue epilogue) {
  const int row_tiles = (s.channels + kTileExtent - 1) / kTileExtent;
  const int64_t tiles_a_class = int64_t{row_tiles} * pixel_tiles;
  for (int64_t t = blockIdx.x; t < tiles_a_class * s.stride * s.stride; t += gridDim.x) {
    const PixelClass of(s, static_cast<int>(t / tiles_a_class));
    const int row = static_cast<int>(t % row_tiles) * kTileExtent;
    const int col = static_cast<int>(t % tiles_a_class / row_tiles) * kTileExtent;
    const int columns = of.size(s);
    if (col >= columns) continue;
    float c[kThreadExtent][kThreadExtent];
    TileProduct(GridToImageSource(s, of, divisors, grid, w, row, col), c);
    ForThreadElements(c, [&](int r, int j, float value) {
      const int channel = row + r;
      if (channel >= s.channels || col + j >= columns) return;
      const Pixel pixel(s, of, col + j);
      const int64_t plane = int64_t{pixel.sample} * s.channels + channel;
      epilogue.Store((plane * s.height + pixel.row) * s.width + pixel.col, channel, value);
    });
  }
}

// Rows: filters; columns: taps; depth: grid positions of the batch, cut into parts that blocks of their own sum.
struct WeightGradientSource {
  static constexpr bool kBAlongDepth = true;
  __device__ WeightGradientSource(const Shape& s, const float* image, const float* grid, int row, int col, int first,
                                  int end)
      : s_(s), image_(image), grid_(grid), row_(row), first_(first), end_(end) {
    for (int load = 0; load < kTileLoads; ++load) {
      const int tap = col + ElementOf<true>(load).line;
      tap_is_there_[load] = tap < s.depth;
      taps_[load] = TapOf(s, tap_is_there_[load] ? tap : 0);
    }
  }
  __device__ int first_k() const { return first_; }
  __device__ int end_k() const { return end_; }
  __device__ float A(int, int line, int k) const {
    const int filter = row_ + line;
    if (filter >= s_.filters || k >= end_) return 0;
    int pixel;
    const int sample = s_.by_pixels.Split(k, &pixel);
    return grid_[(int64_t{sample} * s_.filters + filter) * s_.pixels + pixel];
  }
  __device__ float B(int load, int, int k) const {
    return tap_is_there_[load] && k < end_ ? Window(s_, k, image_).At(s_, taps_[load]) : 0.0f;
  }

 private:
  const Shape& s_;
  const float* image_;
  const float* grid_;
  int row_, first_, end_;
  Tap taps_[kTileLoads];  // of the columns that this thread reads
  bool tap_is_there_[kTileLoads];
};

// Where part `part` of the positions begins: whole steps of a tile's depth.
__device__ inline int PartBegin(int positions, int parts, int part) {
  const int64_t steps = (positions + kTileDepth - 1) / kTileDepth;
  const int64_t begin = steps * part / parts * kTileDepth;
  return begin < positions ? static_cast<int>(begin) : positions;
}

__global__ void WeightGradientKernel(Shape s, int parts, const float* image, const float* grid, float* partials) {
  const int row_tiles = (s.filters + kTileExtent - 1) / kTileExtent;
  const int64_t tiles = int64_t{row_tiles} * ((s.depth + kTileExtent - 1) / kTileExtent);
  const int positions = s.batch * s.pixels;
  for (int64_t t = blockIdx.x; t < tiles * parts; t += gridDim.x) {
    const int part = static_cast<int>(t / tiles);
    const int row = static_cast<int>(t % row_tiles) * kTileExtent;
    const int col = static_cast<int>(t % tiles / row_tiles) * kTileExtent;
    float c[kThreadExtent][kThreadExtent];
    TileProduct(WeightGradientSource(s, image, grid, row, col, PartBegin(positions, parts, part),
                                     PartBegin(positions, parts, part + 1)),
                c);
    float* const partial = partials + int64_t{part} * s.filters * s.depth;
    ForThreadElements(c, [&](int r, int j, float value) {
      if (row + r < s.filters && col + j < s.depth) partial[int64_t{row + r} * s.depth + col + j] = value;
    });
  }
}

__global__ void AddPartsKernel(const float* partials, int parts, int64_t size, bool accumulate, float* out) {
  for (int64_t i = GlobalThread(); i < size; i += GlobalThreads()) {
    float sum = accumulate ? out[i] : 0.0f;
    for (int part = 0; part < parts; ++part) sum += partials[part * size + i];
    out[i] = sum;
  }
}

// Parts of the weight gradient's sums: enough blocks for a large GPU, at least 256 positions each, no more than fit
// into the workspace that every caller has; so a function of the shape.
int PartsOf(const ConvGeometry& g) {
  constexpr int64_t kBlocks = 264;
  constexpr int64_t kPositions = 256;
  const int64_t tiles = int64_t{TilesOf(g.filters)} * TilesOf(g.weight_size() / g.filters);
  const int64_t positions = g.batch * g.grid_height() * g.grid_width();
  const int64_t room = ConvWorkspaceBytes(g, 1) / static_cast<int64_t>(sizeof(float)) / g.weight_size();
  return static_cast<int>(
      std::max<int64_t>(1, std::min({(kBlocks + tiles - 1) / tiles, positions / kPositions, room})));
}

constexpr int kSumThreads = 256;

__global__ void ChannelSumsKernel(const float* dy, int64_t batch, int64_t channels, int64_t pixels, bool accumulate,
                                  float* db) {
  // Steps of a block's threads over (sample, pixel), with one division in all.
  const int64_t samples_a_step = kSumThreads / pixels;
  const int64_t pixels_a_step = kSumThreads % pixels;
  for (int64_t c = blockIdx.x; c < channels; c += gridDim.x) {
    double sum = 0;
    int64_t n = threadIdx.x / pixels;
    int64_t i = threadIdx.x % pixels;
    while (n < batch) {
      sum += static_cast<double>(dy[(n * channels + c) * pixels + i]);
      n += samples_a_step;
      i += pixels_a_step;
      if (i >= pixels) {
        i -= pixels;
        ++n;
      }
    }
    sum = BlockReduce<kSumThreads>(sum, Sum());
    if (threadIdx.x == 0) db[c] = static_cast<float>(accumulate ? static_cast<double>(db[c]) + sum : sum);
  }
}

// A warp a plane.
__global__ void PixelMeanKernel(const float* x, int64_t planes, int64_t pixels, float* y) {
  const int64_t lane = threadIdx.x % 32;
  for (int64_t plane = GlobalThread() / 32; plane < planes; plane += GlobalThreads() / 32) {
    double sum = 0;
    for (int64_t i = lane; i < pixels; i += 32) sum += static_cast<double>(x[plane * pixels + i]);
    sum = WarpReduce(sum, Sum());
    if (lane == 0) y[plane] = static_cast<float>(sum / static_cast<double>(pixels));
  }
}

__global__ void SpreadKernel(const float* dy, int64_t planes, int64_t pixels, float scale, float* dx) {
  const int64_t lane = threadIdx.x % 32;
  for (int64_t plane = GlobalThread() / 32; plane < planes; plane += GlobalThreads() / 32) {
    const float value = dy[plane] * scale;
    for (int64_t i = lane; i < pixels; i += 32) dx[plane * pixels + i] = value;
  }
}

}  // namespace

void ImageToGridCuda(const ImageToGridArgs& args, Stream& stream) {
  const ConvGeometry& g = args.geometry;
  const Epilogue epilogue = {args.bias ? args.bias.as<float>() : nullptr, args.grid.as<float>(), args.accumulate};
  const int64_t tiles = int64_t{TilesOf(g.filters)} * TilesOf(g.batch * g.grid_height() * g.grid_width());
  Launch(stream, RowGrid(tiles, kProductThreads), ImageToGridKernel, Shape(g), args.image.as<float>(),
         args.w.as<float>(), epilogue);
}

void GridToImageCuda(const GridToImageArgs& args, Stream& stream) {
  const ConvGeometry& g = args.geometry;
  const Epilogue epilogue = {args.bias ? args.bias.as<float>() : nullptr, args.image.as<float>(), args.accumulate};
  const auto most = [&](int64_t extent) { return (extent + g.stride - 1) / g.stride; };
  const int pixel_tiles = TilesOf(g.batch * most(g.height) * most(g.width));
  const int64_t tiles = int64_t{TilesOf(g.channels)} * pixel_tiles * g.stride * g.stride;
  Launch(stream, RowGrid(tiles, kProductThreads), GridToImageKernel, Shape(g), TapDivisors(g), pixel_tiles,
         args.grid.as<float>(), args.w.as<float>(), epilogue);
}

void ConvWeightGradientCuda(const ConvWeightGradientArgs& args, Stream& stream) {
  const ConvGeometry& g = args.geometry;
  const int parts = PartsOf(g);
  const int64_t tiles = int64_t{TilesOf(g.filters)} * TilesOf(g.weight_size() / g.filters);
  float* partials = static_cast<float*>(args.workspace.data());
  Launch(stream, RowGrid(tiles * parts, kProductThreads), WeightGradientKernel, Shape(g), parts, args.image.as<float>(),
         args.grid.as<float>(), partials);
  Launch(stream, ElementwiseGrid(g.weight_size()), AddPartsKernel, partials, parts, g.weight_size(), args.accumulate,
         args.dw.as<float>());
}

void ChannelSumsCuda(const ChannelSumsArgs& args, Stream& stream) {
  if (args.db.size() == 0) return;
  Launch(stream, RowGrid(args.db.size(), kSumThreads), ChannelSumsKernel, args.dy.as<float>(), args.dy.dim(0),
         args.dy.dim(1), args.dy.dim(2), args.accumulate, args.db.as<float>());
}

void PixelMeanForwardCuda(const PixelMeanArgs& args, Stream& stream) {
  const int64_t planes = args.y.size();
  if (planes == 0) return;
  Launch(stream, ElementwiseGrid(planes * 32), PixelMeanKernel, args.x.as<float>(), planes, args.x.dim(2),
         args.y.as<float>());
}

void PixelMeanBackwardCuda(const PixelMeanBackwardArgs& args, Stream& stream) {
  const int64_t planes = args.dy.size();
  if (planes == 0) return;
  const int64_t pixels = args.dx.dim(2);
  Launch(stream, ElementwiseGrid(planes * 32), SpreadKernel, args.dy.as<float>(), planes, pixels,
         1.0f / static_cast<float>(pixels), args.dx.as<float>());
}

}  // namespace trainyard::kernels::internal
