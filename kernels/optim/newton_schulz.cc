#include "kernels/optim/newton_schulz.h"

#include <algorithm>

#include "kernels/core/dispatch.h"
#include "kernels/gemm/gemm.h"
#include "kernels/optim/global_norm.h"
#include "kernels/pointwise/elementwise.h"

namespace trainyard::kernels {
namespace internal {

// y = x / (norm + 1e-7). x f32; y f32 or bf16.
void NormalizeByCpu(const TensorView& x, const TensorView& norm, const TensorView& y, Stream& stream);
void NormalizeByCuda(const TensorView& x, const TensorView& norm, const TensorView& y, Stream& stream);

namespace {

struct Coefficients {
  float a, b, c;
};

Coefficients Of(NewtonSchulzCoefficients kind, int step) {
  static constexpr Coefficients kSchedule[] = {{4.0848f, -6.8946f, 2.9270f},
                                               {3.9505f, -6.3029f, 2.6377f},
                                               {3.7418f, -5.5913f, 2.3037f},
                                               {2.8769f, -3.1427f, 1.2046f},
                                               {2.8366f, -3.0525f, 1.2012f}};
  if (kind == NewtonSchulzCoefficients::kFixed) return {3.4445f, -4.7750f, 2.0315f};
  return kSchedule[std::min(step, 4)];
}

int64_t Aligned(int64_t bytes) {
  return (bytes + 63) / 64 * 64;
}

// The parts of the workspace, one after another; without memory only their sizes are wanted.
class Parts {
 public:
  explicit Parts(void* begin) : begin_(static_cast<char*>(begin)) {}
  TensorView Take(DType dtype, std::initializer_list<int64_t> shape) {
    const TensorView view(begin_ == nullptr ? nullptr : begin_ + bytes_, dtype, shape);
    bytes_ += Aligned(view.bytes());
    return view;
  }
  int64_t bytes() const { return bytes_; }

 private:
  char* begin_;
  int64_t bytes_ = 0;
};

struct Workspace {
  Workspace(const TensorView& x, DType precision, void* begin) {
    const int64_t rows = x.dim(0), cols = x.dim(1), small = std::min(rows, cols);
    Parts parts(begin);
    current = parts.Take(precision, {rows, cols});
    next = parts.Take(precision, {rows, cols});
    gram = parts.Take(precision, {small, small});
    polynomial = parts.Take(precision, {small, small});
    norm = parts.Take(DType::kF32, {1});
    norm_partials = parts.Take(DType::kU8, {GlobalNormWorkspaceBytes({&x, 1})});
    const int64_t gemm_bytes = std::max({GemmWorkspaceBytes(precision, small, small, std::max(rows, cols)),
                                         GemmWorkspaceBytes(precision, small, small, small),
                                         GemmWorkspaceBytes(precision, rows, cols, small)});
    gemm = parts.Take(DType::kU8, {gemm_bytes});
    bytes = parts.bytes();
  }
  TensorView current, next, gram, polynomial, norm, norm_partials, gemm;
  int64_t bytes = 0;
};

}  // namespace
}  // namespace internal

int64_t NewtonSchulzWorkspaceBytes(int64_t rows, int64_t cols, DType precision) {
  return internal::Workspace(TensorView(nullptr, DType::kF32, {rows, cols}), precision, nullptr).bytes;
}

void NewtonSchulz(const NewtonSchulzArgs& args, Stream& stream) {
  TY_CHECK_EQ(args.x.rank(), 2);
  TY_CHECK(args.x.dtype() == DType::kF32);
  TY_CHECK(args.precision == DType::kF32 || args.precision == DType::kBF16);
  TY_CHECK_GE(args.workspace ? args.workspace.bytes() : 0,
              NewtonSchulzWorkspaceBytes(args.x.dim(0), args.x.dim(1), args.precision));
  internal::Workspace w(args.x, args.precision, args.workspace.data());
  const bool is_wide = args.x.dim(0) <= args.x.dim(1);

  GlobalNorm({.tensors = {&args.x, 1}, .norm = w.norm, .workspace = w.norm_partials}, stream);
  TY_SELECT(stream, NormalizeBy)(args.x, w.norm, w.current, stream);
  for (int step = 0; step < args.steps; ++step) {
    const internal::Coefficients k = internal::Of(args.coefficients, step);
    Gemm({.a = w.current,
          .b = w.current,
          .c = w.gram,
          .transpose_a = !is_wide,
          .transpose_b = is_wide,
          .workspace = w.gemm},
         stream);
    Convert({.x = w.gram, .y = w.polynomial}, stream);
    Gemm({.a = w.gram, .b = w.gram, .c = w.polynomial, .alpha = k.c, .beta = k.b, .workspace = w.gemm}, stream);
    Convert({.x = w.current, .y = w.next}, stream);
    const TensorView& left = is_wide ? w.polynomial : w.current;
    const TensorView& right = is_wide ? w.current : w.polynomial;
    Gemm({.a = left, .b = right, .c = w.next, .beta = k.a, .workspace = w.gemm}, stream);
    std::swap(w.current, w.next);
  }
  Convert({.x = w.current, .y = args.x}, stream);
}

}  // namespace trainyard::kernels
