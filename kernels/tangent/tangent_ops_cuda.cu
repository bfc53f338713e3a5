// Tangents beside their primal: every kernel reads what its primal needs once for all tangents.
#include <cmath>

#include "kernels/core/block_reduce.h"
#include "kernels/core/cells.h"
#include "kernels/core/map.h"
#include "kernels/core/math.h"
#include "kernels/core/vec.h"
#include "kernels/gemm/gemm.h"
#include "kernels/pointwise/rope.h"
#include "kernels/tangent/random_direction_formula.h"
#include "kernels/tangent/tangent_ops_internal.h"

namespace trainyard::kernels::internal {
namespace {

// A thread four neighbouring random numbers, which the row may have fewer of at its ends, and the table's beside them.
__global__ void EmbeddingTangentKernel(const int32_t* tokens, const float* table, PhiloxKey key, Dual<float> y) {
  for (Cells at(GlobalThread(), GlobalThreads(), (y.cols + 6) / 4); at.row < y.rows; at.Next()) {
    const int64_t begin = int64_t{tokens[at.row]} * y.cols;
    const int64_t block = begin / 4 + at.col;
    const int64_t to = at.row * y.cols;
    for (int64_t k = 0; k < y.tangents; ++k) {
      key.step = static_cast<uint32_t>(k);
      float normals[4];
      DirectionNormals(key, block, normals);
      TY_UNROLL
      for (int lane = 0; lane < 4; ++lane) {
        const int64_t c = 4 * block + lane - begin;
        if (c >= 0 && c < y.cols) y.tangent(k)[to + c] = normals[lane];
      }
    }
    TY_UNROLL
    for (int lane = 0; lane < 4; ++lane) {
      const int64_t c = 4 * block + lane - begin;
      if (c >= 0 && c < y.cols) y.value()[to + c] = table[begin + c];
    }
  }
}

// y[:, begin .. begin + count) += x (rows, count).
template <int kWidth>
__global__ void AddColumnsKernel(const float* x, int64_t rows, int64_t count, float* y, int64_t y_cols) {
  for (Cells at(GlobalThread(), GlobalThreads(), count / kWidth); at.row < rows; at.Next()) {
    float* const to = y + at.row * y_cols + at.col * kWidth;
    const Vec<float, kWidth> added = LoadVec<kWidth>(x + at.row * count + at.col * kWidth);
    Vec<float, kWidth> sum = LoadVec<kWidth>(to);
    TY_UNROLL
    for (int e = 0; e < kWidth; ++e) sum[e] += added[e];
    StoreVec(to, sum);
  }
}

constexpr int kNormThreads = 256;

// A block a row. A thread reads and writes its own columns only, so y may be x.
__global__ void __launch_bounds__(kNormThreads)
    RmsNormTangentKernel(Dual<float> x, const float* w, const float* w_dots, Dual<float> y, float eps) {
  const auto cols = static_cast<float>(x.cols);
  for (int64_t row = blockIdx.x; row < x.rows; row += gridDim.x) {
    const float* const in = x.value() + row * x.cols;
    float squares = 0;
    for (int64_t c = threadIdx.x; c < x.cols; c += kNormThreads) squares = fmaf(in[c], in[c], squares);
    squares = BlockReduce<kNormThreads>(squares, Sum());
    const float inverse = 1.0f / sqrtf(squares / cols + eps);
    for (int64_t k = 0; k < x.tangents; ++k) {
      const float* const dot = x.tangent(k) + row * x.cols;
      float product = 0;
      for (int64_t c = threadIdx.x; c < x.cols; c += kNormThreads) product = fmaf(in[c], dot[c], product);
      product = BlockReduce<kNormThreads>(product, Sum());
      const float shrink = product / cols * inverse * inverse * inverse;
      float* const out = y.tangent(k) + row * x.cols;
      for (int64_t c = threadIdx.x; c < x.cols; c += kNormThreads) {
        out[c] = RmsNormTangentValue(in[c], dot[c], w[c], w_dots[k * x.cols + c], inverse, shrink);
      }
    }
    float* const out = y.value() + row * x.cols;
    for (int64_t c = threadIdx.x; c < x.cols; c += kNormThreads) out[c] = in[c] * inverse * w[c];
  }
}

template <int kWidth>
__global__ void SwigluTangentKernel(Dual<float> gate_up, Dual<float> y) {
  const int64_t width = y.cols;
  for (Cells at(GlobalThread(), GlobalThreads(), width / kWidth); at.row < y.rows; at.Next()) {
    const int64_t from = 2 * at.row * width + at.col * kWidth, to = at.row * width + at.col * kWidth;
    const Vec<float, kWidth> gate = LoadVec<kWidth>(gate_up.value() + from);
    const Vec<float, kWidth> up = LoadVec<kWidth>(gate_up.value() + from + width);
    Vec<float, kWidth> s, out;
    TY_UNROLL
    for (int e = 0; e < kWidth; ++e) {
      s[e] = FastSigmoid(gate[e]);
      out[e] = up[e] * gate[e] * s[e];
    }
    StoreVec(y.value() + to, out);
    for (int64_t k = 0; k < y.tangents; ++k) {
      const Vec<float, kWidth> gate_dot = LoadVec<kWidth>(gate_up.tangent(k) + from);
      const Vec<float, kWidth> up_dot = LoadVec<kWidth>(gate_up.tangent(k) + from + width);
      TY_UNROLL
      for (int e = 0; e < kWidth; ++e) out[e] = SwigluTangentValue(gate[e], up[e], gate_dot[e], up_dot[e], s[e]);
      StoreVec(y.tangent(k) + to, out);
    }
  }
}

struct AddValues {
  __device__ float operator()(float a, float b) const { return a + b; }
};

TensorView Matrix(const float* data, int64_t rows, int64_t cols) {
  return {const_cast<float*>(data), DType::kF32, {rows, cols}};
}

}  // namespace

void EmbeddingTangentCuda(const EmbeddingTangentArgs<float>& args, Stream& stream) {
  if (args.y.part_size() == 0) return;
  Launch(stream, ElementwiseGrid(args.y.rows * ((args.y.cols + 6) / 4)), EmbeddingTangentKernel, args.tokens,
         args.table, RandomKeyOf(args.key), args.y);
}

// The primal's product has one shape whatever the number of tangents, so that it has the same bits.
void LinearTangentCuda(const LinearTangentArgs<float>& args, Stream& stream) {
  const int64_t in = args.x.cols, out = args.y.cols, rows = args.y.rows;
  if (rows == 0 || out == 0) return;
  for (int64_t part = 0; part <= args.y.tangents; ++part) {
    GemmArgs product;
    product.a = Matrix(args.x.data + part * args.x.part_size(), rows, in);
    product.b = Matrix(args.w, out, in);
    product.c = Matrix(args.y.data + part * args.y.part_size(), rows, out);
    product.transpose_b = true;
    if (args.bias != nullptr) {
      const float* const bias = part == 0 ? args.bias : args.bias_dots + (part - 1) * out;
      product.bias = {const_cast<float*>(bias), DType::kF32, {out}};
    }
    Gemm(product, stream);
  }
}

void AddWeightTangentCuda(const WeightTangentArgs<float>& args, Stream& stream) {
  const int64_t rows = args.x.rows;
  if (rows == 0 || args.count == 0) return;
  GemmArgs product;
  product.a = Matrix(args.x.value(), rows, args.x.cols);
  product.b = Matrix(args.panel, args.count, args.x.cols);
  product.c = Matrix(args.product, rows, args.count);
  product.transpose_b = true;
  Gemm(product, stream);
  float* const to = args.y.tangent(args.tangent) + args.row_begin;
  constexpr int kWidth = kVecWidth<float>;
  const bool vectors = args.count % kWidth == 0 && args.y.cols % kWidth == 0 && AllVecAligned(args.product, to);
  Launch(stream, ElementwiseGrid(rows * args.count, vectors ? kWidth : 1),
         vectors ? AddColumnsKernel<kWidth> : AddColumnsKernel<1>, args.product, rows, args.count, to, args.y.cols);
}

void RmsNormTangentCuda(const RmsNormTangentArgs<float>& args, Stream& stream) {
  if (args.x.part_size() == 0) return;
  Launch(stream, RowGrid(args.x.rows, kNormThreads), RmsNormTangentKernel, args.x, args.w, args.w_dots, args.y,
         static_cast<float>(args.eps));
}

void SwigluTangentCuda(const Dual<float>& gate_up, const Dual<float>& y, Stream& stream) {
  if (y.part_size() == 0) return;
  constexpr int kWidth = kVecWidth<float>;
  const bool vectors = y.cols % kWidth == 0 && AllVecAligned(gate_up.data, y.data);
  Launch(stream, ElementwiseGrid(y.part_size(), vectors ? kWidth : 1),
         vectors ? SwigluTangentKernel<kWidth> : SwigluTangentKernel<1>, gate_up, y);
}

void AddDualCuda(const Dual<float>& x, const Dual<float>& y, Stream& stream) {
  Map(stream, AddValues{}, x.size(), y.data, static_cast<const float*>(y.data), static_cast<const float*>(x.data));
}

// Parts are what a batch has as sequences.
void RopeTangentCuda(const RopeTangentArgs<float>& args, Stream& stream) {
  const Dual<float>& qkv = args.qkv;
  if (qkv.part_size() == 0) return;
  const int64_t kv_heads = qkv.cols / args.head_dim - args.turned_heads;
  RopeForward({.qkv = Matrix(qkv.data, (1 + qkv.tangents) * qkv.rows, qkv.cols),
               .table = {const_cast<float*>(args.table), DType::kF32, {qkv.rows, args.head_dim / 2, 2}},
               .batch = 1 + qkv.tangents,
               .q_heads = args.turned_heads - kv_heads,
               .kv_heads = kv_heads,
               .head_dim = args.head_dim},
              stream);
}

}  // namespace trainyard::kernels::internal
