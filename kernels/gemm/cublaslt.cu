#include <cublasLt.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <map>
#include <string>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/mutex.h"
#include "kernels/gemm/cublaslt.h"
#include "kernels/gemm/gemm_tuning.h"

namespace trainyard::kernels::internal {
namespace {

constexpr int64_t kWorkspaceBytes = 32 << 20;
constexpr int64_t kAlphaBetaBytes = 256;  // behind it
constexpr int kMeasuredPlans = 8;
constexpr int kTimedRuns = 3;

__global__ void AlphaBetaKernel(float alpha, float beta, const float* a_factor, const float* b_factor, float* out) {
  const float a = a_factor == nullptr ? 1.0f : *a_factor;
  const float b = b_factor == nullptr ? 1.0f : *b_factor;
  out[0] = alpha * (a * b);
  out[1] = beta;
}

// For calls that fail only if the context is lost or this file is wrong.
void Must(cublasStatus_t status, const char* call) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  TY_CHECK_OK(absl::InternalError(absl::StrCat(call, ": ", cublasLtGetStatusString(status))));
}
void Must(cudaError_t error, const char* call) {
  if (error == cudaSuccess) return;
  TY_CHECK_OK(absl::InternalError(absl::StrCat(call, ": ", cudaGetErrorString(error))));
}

cudaDataType TypeOf(DType dtype, LtScaling scaling) {
  if (scaling == LtScaling::kNv) return CUDA_R_4F_E2M1;
  switch (dtype) {
    case DType::kBF16:
      return CUDA_R_16BF;
    case DType::kF8E4M3:
      return CUDA_R_8F_E4M3;
    case DType::kF8E5M2:
      return CUDA_R_8F_E5M2;
    default:
      TY_CHECK(dtype == DType::kF32);
      return CUDA_R_32F;
  }
}

template <typename T>
void Set(cublasLtMatmulDescOpaque_t& operation, cublasLtMatmulDescAttributes_t attribute, T value) {
  Must(cublasLtMatmulDescSetAttribute(&operation, attribute, &value, sizeof(value)), "cublasLtMatmulDescSetAttribute");
}
template <typename T>
void Set(cublasLtMatmulPreferenceOpaque_t& preference, cublasLtMatmulPreferenceAttributes_t attribute, T value) {
  Must(cublasLtMatmulPreferenceSetAttribute(&preference, attribute, &value, sizeof(value)),
       "cublasLtMatmulPreferenceSetAttribute");
}

// The largest power of two, up to 256, that divides an address.
uint32_t AlignmentOf(const void* address) {
  const uintptr_t bits = reinterpret_cast<uintptr_t>(address) | 256;
  return static_cast<uint32_t>(bits & (~bits + 1));
}

// The library is column-major, where our c is its transpose: c^T = op(b)^T op(a)^T. So its first operand is our b, and
// a stored row-major matrix is its matrix with rows and columns exchanged.
struct Description {
  cublasLtMatmulDescOpaque_t operation;
  cublasLtMatrixLayoutOpaque_t left, right, out;
};

bool Describe(const LtProduct& p, Description& d) {
  if (cublasLtMatmulDescInit(&d.operation, CUBLAS_COMPUTE_32F, CUDA_R_32F) != CUBLAS_STATUS_SUCCESS) return false;
  Set(d.operation, CUBLASLT_MATMUL_DESC_TRANSA, p.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N);
  Set(d.operation, CUBLASLT_MATMUL_DESC_TRANSB, p.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N);
  if (p.bias != nullptr) {
    Set(d.operation, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
    Set(d.operation, CUBLASLT_MATMUL_DESC_BIAS_POINTER, p.bias);
    Set(d.operation, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, static_cast<int32_t>(TypeOf(p.bias_type, LtScaling::kNone)));
  }
  if (p.scaling != LtScaling::kNone) {
    if (p.scaling == LtScaling::kNv) {
      const int32_t mode = CUBLASLT_MATMUL_MATRIX_SCALE_VEC16_UE4M3;
      Set(d.operation, CUBLASLT_MATMUL_DESC_A_SCALE_MODE, mode);
      Set(d.operation, CUBLASLT_MATMUL_DESC_B_SCALE_MODE, mode);
    }
    Set(d.operation, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, p.b_scale);
    Set(d.operation, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, p.a_scale);
  }
  if (p.HasFactors()) {
    Set(d.operation, CUBLASLT_MATMUL_DESC_POINTER_MODE, static_cast<int32_t>(CUBLASLT_POINTER_MODE_DEVICE));
  }
  const auto layout = [](cublasLtMatrixLayoutOpaque_t& to, cudaDataType type, int64_t rows, int64_t cols) {
    return cublasLtMatrixLayoutInit(&to, type, static_cast<uint64_t>(cols), static_cast<uint64_t>(rows), cols) ==
           CUBLAS_STATUS_SUCCESS;
  };
  return layout(d.left, TypeOf(p.b_type, p.scaling), p.transpose_b ? p.n : p.k, p.transpose_b ? p.k : p.n) &&
         layout(d.right, TypeOf(p.a_type, p.scaling), p.transpose_a ? p.k : p.m, p.transpose_a ? p.m : p.k) &&
         layout(d.out, TypeOf(p.c_type, LtScaling::kNone), p.m, p.n);
}

// All that the choice of a plan may depend on.
using PlanKey = std::tuple<int, int64_t, int64_t, int64_t, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t>;

PlanKey KeyOf(const LtProduct& p, int device, GemmTuning tuning) {
  const auto bits = [](auto value) { return static_cast<uint32_t>(value); };
  const uint32_t types =
      bits(p.a_type) | bits(p.b_type) << 4 | bits(p.c_type) << 8 | bits(p.bias_type) << 12 | bits(p.scaling) << 16;
  const uint32_t flags = bits(p.transpose_a) | bits(p.transpose_b) << 1 | bits(p.bias != nullptr) << 2 |
                         bits(p.beta != 0) << 3 | bits(p.HasFactors()) << 4 | bits(tuning) << 5;
  return {device, p.m, p.n, p.k, types, flags, AlignmentOf(p.a), AlignmentOf(p.b), AlignmentOf(p.c)};
}

struct Plan {
  bool exists = false;
  cublasLtMatmulAlgo_t algorithm = {};
};

struct Library {
  Mutex mutex;
  std::map<int, cublasLtHandle_t> handles ABSL_GUARDED_BY(mutex);  // by GPU
  // By GPU and cudaStream_t. A handle that is used again belongs to a stream whose work has ended.
  std::map<std::pair<int, void*>, void*> workspaces ABSL_GUARDED_BY(mutex);
  std::map<PlanKey, Plan> plans ABSL_GUARDED_BY(mutex);
};
Library& TheLibrary() {
  static Library* const library = new Library;  // never destroyed: streams may outlive main's end
  return *library;
}

cublasLtHandle_t HandleOf(Library& library, int device) {
  MutexLock lock(&library.mutex);
  cublasLtHandle_t& handle = library.handles[device];
  if (handle == nullptr) Must(cublasLtCreate(&handle), "cublasLtCreate");
  return handle;
}

void* WorkspaceOf(Library& library, int device, Stream& stream) {
  MutexLock lock(&library.mutex);
  void*& workspace = library.workspaces[{device, stream.handle()}];
  if (workspace == nullptr) {
    // Allowed while a graph is captured, too: the memory belongs to the program, not to the graph.
    cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
    Must(cudaThreadExchangeStreamCaptureMode(&mode), "cudaThreadExchangeStreamCaptureMode");
    Must(cudaMalloc(&workspace, kWorkspaceBytes + kAlphaBetaBytes), "cudaMalloc of a cuBLASLt workspace");
    Must(cudaThreadExchangeStreamCaptureMode(&mode), "cudaThreadExchangeStreamCaptureMode");
  }
  return workspace;
}

bool IsCaptured(cudaStream_t stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  Must(cudaStreamIsCapturing(stream, &status), "cudaStreamIsCapturing");
  return status != cudaStreamCaptureStatusNone;
}

class Call {
 public:
  Call(const LtProduct& product, Description& description, cublasLtHandle_t handle, void* workspace, Stream& stream)
      : product_(product),
        description_(description),
        handle_(handle),
        workspace_(workspace),
        stream_(static_cast<cudaStream_t>(stream.handle())) {}

  // The library's proposals, its favourite first. None if it cannot do it.
  int Propose(cublasLtMatmulHeuristicResult_t* results, int limit) {
    cublasLtMatmulPreferenceOpaque_t preference;
    Must(cublasLtMatmulPreferenceInit(&preference), "cublasLtMatmulPreferenceInit");
    Set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, static_cast<uint64_t>(kWorkspaceBytes));
    Set(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
        static_cast<uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
    Set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, AlignmentOf(product_.b));
    Set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, AlignmentOf(product_.a));
    Set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, AlignmentOf(product_.c));
    Set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, AlignmentOf(product_.c));
    int count = 0;
    const cublasStatus_t status =
        cublasLtMatmulAlgoGetHeuristic(handle_, &description_.operation, &description_.left, &description_.right,
                                       &description_.out, &description_.out, &preference, limit, results, &count);
    return status == CUBLAS_STATUS_SUCCESS ? count : 0;
  }

  cublasStatus_t Run(const cublasLtMatmulAlgo_t& algorithm, void* to) {
    const float* const device = AlphaBeta();
    const void* alpha = product_.HasFactors() ? device : &product_.alpha;
    const void* beta = product_.HasFactors() ? device + 1 : &product_.beta;
    return cublasLtMatmul(handle_, &description_.operation, alpha, product_.b, &description_.left, product_.a,
                          &description_.right, beta, product_.c, &description_.out, to, &description_.out, &algorithm,
                          workspace_, static_cast<size_t>(kWorkspaceBytes), stream_);
  }

  // The fastest of the proposals; results go to memory of their own, since c may be an operand. The first if that
  // memory cannot be had.
  cublasLtMatmulAlgo_t Fastest(const cublasLtMatmulHeuristicResult_t* results, int count) {
    const size_t bytes = static_cast<size_t>(product_.m * product_.n) * SizeOf(product_.c_type);
    void* scratch = nullptr;
    if (count < 2 || cudaMalloc(&scratch, bytes) != cudaSuccess) {
      (void)cudaGetLastError();
      return results[0].algo;
    }
    cudaEvent_t begin = nullptr, end = nullptr;
    Must(cudaEventCreate(&begin), "cudaEventCreate");
    Must(cudaEventCreate(&end), "cudaEventCreate");
    int best = 0;
    float best_ms = 0;
    for (int i = 0; i < count; ++i) {
      if (Run(results[i].algo, scratch) != CUBLAS_STATUS_SUCCESS) continue;  // loads the kernel
      float fastest_ms = 0;
      for (int run = 0; run < kTimedRuns; ++run) {
        Must(cudaEventRecord(begin, stream_), "cudaEventRecord");
        Must(Run(results[i].algo, scratch), "cublasLtMatmul");
        Must(cudaEventRecord(end, stream_), "cudaEventRecord");
        Must(cudaEventSynchronize(end), "cudaEventSynchronize");
        float ms = 0;
        Must(cudaEventElapsedTime(&ms, begin, end), "cudaEventElapsedTime");
        fastest_ms = run == 0 ? ms : std::min(fastest_ms, ms);
      }
      if (best_ms == 0 || fastest_ms < best_ms) {
        best = i;
        best_ms = fastest_ms;
      }
    }
    Must(cudaEventDestroy(begin), "cudaEventDestroy");
    Must(cudaEventDestroy(end), "cudaEventDestroy");
    Must(cudaFree(scratch), "cudaFree");
    return results[best].algo;
  }

  bool IsCaptured() const { return internal::IsCaptured(stream_); }

  // Makes alpha and beta of the factors, for the runs that follow on the stream. What ran before has read the last
  // pair.
  void MakeAlphaBeta() {
    AlphaBetaKernel<<<1, 1, 0, stream_>>>(product_.alpha, product_.beta, product_.a_factor, product_.b_factor,
                                          AlphaBeta());
    Must(cudaPeekAtLastError(), "AlphaBetaKernel");
  }

 private:
  float* AlphaBeta() const { return reinterpret_cast<float*>(static_cast<char*>(workspace_) + kWorkspaceBytes); }

  const LtProduct& product_;
  Description& description_;  // which the library takes as not const
  const cublasLtHandle_t handle_;
  void* const workspace_;
  const cudaStream_t stream_;
};

Plan MakePlan(Call& call, GemmTuning tuning) {
  cublasLtMatmulHeuristicResult_t results[kMeasuredPlans];
  const bool measures = tuning == GemmTuning::kMeasured;
  const int count = call.Propose(results, measures ? kMeasuredPlans : 1);
  if (count == 0) return {};
  return {.exists = true, .algorithm = measures ? call.Fastest(results, count) : results[0].algo};
}

}  // namespace

bool RunCublasLt(const LtProduct& product, Stream& stream) {
  if (product.m == 0 || product.n == 0 || product.k == 0) return false;
  int device = 0;
  Must(cudaGetDevice(&device), "cudaGetDevice");
  Library& library = TheLibrary();
  Description description;
  if (!Describe(product, description)) return false;
  Call call(product, description, HandleOf(library, device), WorkspaceOf(library, device, stream), stream);

  if (product.HasFactors()) call.MakeAlphaBeta();

  // A graph's capture must not be disturbed by measurements.
  GemmTuning tuning = CurrentGemmTuning();
  Plan plan;
  bool is_known = false;
  const auto look_up = [&] {
    MutexLock lock(&library.mutex);
    const auto found = library.plans.find(KeyOf(product, device, tuning));
    is_known = found != library.plans.end();
    if (is_known) plan = found->second;
  };
  look_up();
  if (!is_known && tuning == GemmTuning::kMeasured && call.IsCaptured()) {
    tuning = GemmTuning::kFirst;
    look_up();
  }
  if (!is_known) {
    plan = MakePlan(call, tuning);
    MutexLock lock(&library.mutex);
    library.plans[KeyOf(product, device, tuning)] = plan;
  }
  if (!plan.exists) return false;
  Must(call.Run(plan.algorithm, product.c), "cublasLtMatmul");
  return true;
}

int CublasLtCapability() {
  int device = 0;
  int major = 0;
  int minor = 0;
  Must(cudaGetDevice(&device), "cudaGetDevice");
  Must(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "cudaDeviceGetAttribute");
  Must(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device), "cudaDeviceGetAttribute");
  return 10 * major + minor;
}

}  // namespace trainyard::kernels::internal
