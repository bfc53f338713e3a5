#include <algorithm>

#include "kernels/core/dispatch.h"
#include "kernels/core/simd.h"
#include "kernels/gemm/gemm_internal.h"
#include "kernels/gemm/sgemm.h"

namespace trainyard::kernels::internal {
namespace {

// A rectangle of a stored matrix.
template <typename T>
struct Rectangle {
  T* data;
  int64_t stride;
};

// The tiles that products are cut into, by shape alone. A tile is one library call: small enough that a handful of
// threads share the work evenly, large enough that repacking the operands for every tile costs little.
struct Tiles {
  Tiles(int64_t m, int64_t n) : m(m), n(n) {
    rows = TileExtent(m, 512);
    cols = TileExtent(n, 1024);
    across = (n + cols - 1) / cols;
    count = (m + rows - 1) / rows * across;
  }
  // Equal parts of at most `limit`, multiples of 48 (the height and width of the library's register blocks divide it).
  static int64_t TileExtent(int64_t extent, int64_t limit) {
    const int64_t parts = (extent + limit - 1) / limit;
    const int64_t part = (extent + parts - 1) / std::max<int64_t>(parts, 1);
    return std::max<int64_t>((part + 47) / 48 * 48, 1);
  }
  int64_t m, n, rows, cols, across, count;
};

TY_SIMD void AddBias(float* c, int64_t stride, int64_t rows, int64_t cols, const float* bias) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t j = 0; j < cols; ++j) c[r * stride + j] += bias[j];
  }
}

TY_SIMD void AddBiasBF16(float* c, int64_t stride, int64_t rows, int64_t cols, const BFloat16* bias) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t j = 0; j < cols; ++j) c[r * stride + j] += ToFloat(bias[j]);
  }
}

void AddBias(const TensorView& bias, int64_t first, float* c, int64_t stride, int64_t rows, int64_t cols) {
  if (bias.dtype() == DType::kF32) {
    AddBias(c, stride, rows, cols, bias.as<float>() + first);
  } else {
    AddBiasBF16(c, stride, rows, cols, bias.as<BFloat16>() + first);
  }
}

// c = alpha op(a) op(b) + beta c over tiles; then finish(row, col, rows, cols) for each tile while it is in cache.
template <typename Finish>
void TiledProduct(const SgemmArgs& whole, Stream& stream, const Finish& finish) {
  const Tiles tiles(whole.m, whole.n);
  stream.pool().ParallelFor(tiles.count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t tile = begin; tile < end; ++tile) {
      const int64_t row = tile / tiles.across * tiles.rows;
      const int64_t col = tile % tiles.across * tiles.cols;
      SgemmArgs part = whole;
      part.m = std::min(tiles.rows, whole.m - row);
      part.n = std::min(tiles.cols, whole.n - col);
      part.a += whole.transpose_a ? row : row * whole.lda;
      part.b += whole.transpose_b ? col * whole.ldb : col;
      part.c += row * whole.ldc + col;
      Sgemm(part);
      finish(row, col, part.m, part.n);
    }
  });
}

void GemmF32(const GemmArgs& args, const SgemmArgs& whole, Stream& stream) {
  TiledProduct(whole, stream, [&](int64_t row, int64_t col, int64_t rows, int64_t cols) {
    if (args.bias) AddBias(args.bias, col, whole.c + row * whole.ldc + col, whole.ldc, rows, cols);
  });
}

TY_SIMD void WidenRow(const BFloat16* from, float* to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] = ToFloat(from[i]);
}

// Copies rows x cols of bf16 into dense f32.
void Widen(Rectangle<const BFloat16> from, int64_t rows, int64_t cols, float* to, Stream& stream) {
  stream.pool().ParallelFor(rows, 64, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) WidenRow(from.data + r * from.stride, to + r * cols, cols);
  });
}

TY_SIMD void RoundRow(const float* from, BFloat16* to, int64_t count, float beta) {
  if (beta == 0) {
    for (int64_t i = 0; i < count; ++i) to[i] = FromFloat<BFloat16>(from[i]);
  } else {
    for (int64_t i = 0; i < count; ++i) to[i] = FromFloat<BFloat16>(from[i] + beta * ToFloat(to[i]));
  }
}

void GemmBF16(const GemmArgs& args, const SgemmArgs& whole, Stream& stream) {
  const WidenedPanels panels(whole.m, whole.n, whole.k);
  float* a_panel = static_cast<float*>(args.workspace.data());
  float* b_panel = a_panel + panels.a_floats();
  float* c_panel = b_panel + panels.b_floats();
  const BFloat16* a = args.a.as<BFloat16>();
  const BFloat16* b = args.b.as<BFloat16>();
  const bool into_c = args.c.dtype() == DType::kF32;
  // With one depth step, the panel of a serves all columns.
  for (int64_t row = 0; row < whole.m; row += panels.rows) {
    const int64_t rows = std::min(panels.rows, whole.m - row);
    int64_t a_depth = -1;
    for (int64_t col = 0; col < whole.n; col += panels.cols) {
      const int64_t cols = std::min(panels.cols, whole.n - col);
      SgemmArgs part = whole;
      part.m = rows;
      part.n = cols;
      part.a = a_panel;
      part.b = b_panel;
      part.c = into_c ? whole.c + row * whole.ldc + col : c_panel;
      part.ldc = into_c ? whole.ldc : cols;
      // k = 0 runs once too: c becomes beta c + bias.
      for (int64_t at = 0; at == 0 || at < whole.k; at += panels.depth) {
        const int64_t depth = std::min(panels.depth, whole.k - at);
        part.k = depth;
        part.lda = whole.transpose_a ? rows : depth;
        part.ldb = whole.transpose_b ? depth : cols;
        part.beta = at > 0 ? 1.0f : into_c ? whole.beta : 0.0f;
        if (a_depth != at && whole.transpose_a) {
          Widen({a + at * whole.lda + row, whole.lda}, depth, rows, a_panel, stream);
        } else if (a_depth != at) {
          Widen({a + row * whole.lda + at, whole.lda}, rows, depth, a_panel, stream);
        }
        a_depth = at;
        if (whole.transpose_b) {
          Widen({b + col * whole.ldb + at, whole.ldb}, cols, depth, b_panel, stream);
        } else {
          Widen({b + at * whole.ldb + col, whole.ldb}, depth, cols, b_panel, stream);
        }
        const bool is_last = at + depth >= whole.k;
        TiledProduct(part, stream, [&](int64_t r0, int64_t c0, int64_t tile_rows, int64_t tile_cols) {
          if (!is_last) return;
          float* tile = part.c + r0 * part.ldc + c0;
          if (args.bias) AddBias(args.bias, col + c0, tile, part.ldc, tile_rows, tile_cols);
          if (into_c) return;
          BFloat16* c = args.c.as<BFloat16>() + (row + r0) * whole.ldc + col + c0;
          for (int64_t r = 0; r < tile_rows; ++r) {
            RoundRow(tile + r * part.ldc, c + r * whole.ldc, tile_cols, whole.beta);
          }
        });
      }
    }
  }
}

float ScaleOf(const TensorView& scale) {
  return scale ? scale.as<float>()[0] : 1.0f;
}

}  // namespace

void GemmCpu(const GemmArgs& args, Stream& stream) {
  SgemmArgs whole;
  whole.transpose_a = args.transpose_a;
  whole.transpose_b = args.transpose_b;
  whole.m = args.c.dim(0);
  whole.n = args.c.dim(1);
  whole.k = args.a.dim(args.transpose_a ? 0 : 1);
  whole.alpha = args.alpha * (ScaleOf(args.a_scale) * ScaleOf(args.b_scale));
  whole.lda = args.a.dim(1);
  whole.ldb = args.b.dim(1);
  whole.beta = args.beta;
  whole.ldc = whole.n;
  if (args.c.dtype() == DType::kF32) whole.c = args.c.as<float>();
  if (args.a.dtype() == DType::kF32) {
    whole.a = args.a.as<float>();
    whole.b = args.b.as<float>();
    GemmF32(args, whole, stream);
  } else {
    GemmBF16(args, whole, stream);
  }
}

}  // namespace trainyard::kernels::internal
