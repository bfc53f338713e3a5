// The product of thin factors a tile of rows at a time, so that what is done with it finds it in cache.
#pragma once

#include <algorithm>

#include "kernels/core/stream.h"
#include "kernels/gemm/sgemm.h"
#include "kernels/optim/low_rank_factors.h"

namespace trainyard::kernels::internal {

inline constexpr int64_t kTileRows = 192;  // the library packs Y again for each tile: enough rows to make that cheap

// c = alpha X Y + beta c, c f32 (rows, cols), then finish(row, rows) for each tile. Tiles depend on the shape alone.
template <typename Finish>
void ForRowsOfProduct(const LowRankFactors& factors, float alpha, float beta, const TensorView& c, Stream& stream,
                      const Finish& finish) {
  const int64_t rows = factors.rows();
  const int64_t tiles = (rows + kTileRows - 1) / kTileRows;
  stream.pool().ParallelFor(tiles, 1, [&](int64_t begin, int64_t end) {
    for (int64_t tile = begin; tile < end; ++tile) {
      const int64_t row = tile * kTileRows;
      const int64_t count = std::min(kTileRows, rows - row);
      Sgemm({.transpose_b = factors.transpose_y,
             .m = count,
             .n = factors.cols(),
             .k = factors.rank(),
             .alpha = alpha,
             .a = factors.x.as<float>() + row * factors.rank(),
             .lda = factors.rank(),
             .b = factors.y.as<float>(),
             .ldb = factors.y.dim(1),
             .beta = beta,
             .c = c.as<float>() + row * factors.cols(),
             .ldc = factors.cols()});
      finish(row, count);
    }
  });
}

}  // namespace trainyard::kernels::internal
