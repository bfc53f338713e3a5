#include "worker/comm/power_sgd_reducer.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/check.h"
#include "base/status_macros.h"
#include "kernels/core/dispatch.h"
#include "kernels/core/philox.h"
#include "worker/comm/orthonormal.h"

namespace trainyard::comm {
namespace {

using kernels::DType;
using kernels::TensorView;

// Sixteen sums side by side.
float Dot(const float* a, const float* b, int64_t length) {
  float lanes[16] = {};
  int64_t i = 0;
  for (; i + 16 <= length; i += 16) {
    for (int lane = 0; lane < 16; ++lane) lanes[lane] += a[i + lane] * b[i + lane];
  }
  for (; i < length; ++i) lanes[i % 16] += a[i] * b[i];
  for (int half = 8; half > 0; half /= 2) {
    for (int lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
  }
  return lanes[0];
}

void AddScaled(float factor, const float* from, int64_t length, float* to) {
  for (int64_t i = 0; i < length; ++i) to[i] += factor * from[i];
}

bool AllFinite(const float* values, int64_t count) {
  return std::all_of(values, values + count, [](float value) { return std::isfinite(value); });
}

absl::Status AllReduce(float* data, int64_t count, float scale, const ReduceContext& context) {
  if (count == 0) return absl::OkStatus();
  Communicator& communicator = *context.communicator;
  const WireBytes expected = AllReduceBytes(count, sizeof(float), communicator.size(), communicator.rank());
  const int64_t before = communicator.traffic().bytes_sent;
  TY_RETURN_IF_ERROR(communicator.After(*context.stream));
  TY_RETURN_IF_ERROR(communicator.AllReduceSum(TensorView(data, DType::kF32, {count}), scale));
  context.sent->phase2 += expected.phase2;
  context.sent->phase1 += communicator.traffic().bytes_sent - before - expected.phase2;
  return absl::OkStatus();
}

}  // namespace

PowerSgdReducer::PowerSgdReducer(const std::vector<BucketTensor>& tensors, ExchangeParts* parts, PieceCoder* coder)
    : parts_(*parts),
      coder_(coder),
      options_(*parts->power_sgd()),
      plain_(tensors, coder, parts->ranks(), parts->rank()) {
  for (const BucketTensor& tensor : tensors) {
    if (!parts->IsFactorised(tensor.index)) {
      others_.push_back(tensor);
      other_elements_ += tensor.gradient.size();
      continue;
    }
    const ExchangeTensor& shape = parts->tensors()[static_cast<size_t>(tensor.index)];
    matrices_.push_back({tensor, shape.rows, shape.cols, p_elements_, q_elements_, true});
    p_elements_ += options_.rank * shape.rows;
    q_elements_ += options_.rank * shape.cols;
    longest_ = std::max(longest_, shape.elements);
    widest_ = std::max(widest_, shape.cols);
  }
  row_.resize(static_cast<size_t>(widest_));
}

BufferNeeds PowerSgdReducer::Needs() const {
  BufferNeeds needs = options_.start_step > 0 ? plain_.Needs() : BufferNeeds();
  BufferNeeds own;
  own.values = longest_;
  own.sum = p_elements_ + other_elements_;
  own.decoded = q_elements_;
  own.transport = std::max(own.sum, own.decoded) * static_cast<int64_t>(sizeof(float));
  needs.Cover(own);
  return needs;
}

WireBytes PowerSgdReducer::BytesSent() const {
  const WireBytes p = AllReduceBytes(p_elements_ + other_elements_, sizeof(float), parts_.ranks(), parts_.rank());
  const WireBytes q = AllReduceBytes(q_elements_, sizeof(float), parts_.ranks(), parts_.rank());
  return {p.phase1 + q.phase1, p.phase2 + q.phase2};
}

const float* PowerSgdReducer::Value(const Matrix& matrix, float* buffer) const {
  const float* const value = coder_->Piece({{matrix.tensor.index, 0, matrix.tensor.gradient.size()},
                                            matrix.tensor.gradient.Reshape({matrix.tensor.gradient.size()})},
                                           buffer);
  kernels::WaitForDevice(coder_->stream());
  return value;
}

absl::Status PowerSgdReducer::Reduce(const ReduceContext& context) {
  if (context.step < options_.start_step) return plain_.Reduce(context);
  ExchangeBuffers& buffers = *context.buffers;
  TY_RETURN_IF_ERROR(context.stream->Synchronize());
  Project(context);
  // The others' sums are scaled afterwards, which gives the bits of scaling in the sum.
  TY_RETURN_IF_ERROR(AllReduce(buffers.sum.floats(), p_elements_ + other_elements_, 1.0f, context));
  float* other = buffers.sum.floats() + p_elements_;
  for (const BucketTensor& tensor : others_) {
    const int64_t elements = tensor.gradient.size();
    for (int64_t i = 0; i < elements; ++i) other[i] *= context.scale;
    StoreInto(other, tensor.gradient);
    other += elements;
  }
  ProjectBack(context);
  TY_RETURN_IF_ERROR(AllReduce(buffers.decoded.floats(), q_elements_, context.scale, context));
  Rebuild(context);
  return absl::OkStatus();
}

void PowerSgdReducer::Project(const ReduceContext& context) {
  const CodecTimer timer(coder_);
  ExchangeBuffers& buffers = *context.buffers;
  for (Matrix& matrix : matrices_) {
    float* const q = parts_.factor(matrix.tensor.index);
    if (Orthonormalize(q, options_.rank, matrix.cols) > 0) {
      // A direction died out, which gradients of lower rank than r do. Looks for another.
      const kernels::PhiloxKey key{.seed = parts_.options().seed,
                                   .step = static_cast<uint32_t>(context.step) + 1,
                                   .purpose = kernels::kRandomPowerSgd,
                                   .tensor = static_cast<uint32_t>(matrix.tensor.index)};
      for (int k = 0; k < options_.rank; ++k) {
        float* const vector = q + k * matrix.cols;
        if (std::any_of(vector, vector + matrix.cols, [](float value) { return value != 0; })) continue;
        for (int64_t i = 0; i < matrix.cols; ++i) {
          vector[i] = kernels::RandomNormal(key, static_cast<uint64_t>(k * matrix.cols + i));
        }
      }
      Orthonormalize(q, options_.rank, matrix.cols);
    }
    const float* const value = Value(matrix, buffers.values.floats());
    float* const p = buffers.sum.floats() + matrix.p;
    for (int64_t row = 0; row < matrix.rows; ++row) {
      for (int k = 0; k < options_.rank; ++k) {
        p[k * matrix.rows + row] = Dot(value + row * matrix.cols, q + k * matrix.cols, matrix.cols);
      }
    }
  }
  float* other = buffers.sum.floats() + p_elements_;
  for (const BucketTensor& tensor : others_) {
    WidenInto(tensor.gradient, other);
    other += tensor.gradient.size();
  }
}

void PowerSgdReducer::ProjectBack(const ReduceContext& context) {
  const CodecTimer timer(coder_);
  ExchangeBuffers& buffers = *context.buffers;
  for (Matrix& matrix : matrices_) {
    float* const p = buffers.sum.floats() + matrix.p;
    float* const q = buffers.decoded.floats() + matrix.q;
    std::fill_n(q, options_.rank * matrix.cols, 0.0f);
    matrix.is_finite = AllFinite(p, options_.rank * matrix.rows);
    if (!matrix.is_finite) continue;
    Orthonormalize(p, options_.rank, matrix.rows);
    const float* const value = Value(matrix, buffers.values.floats());
    for (int64_t row = 0; row < matrix.rows; ++row) {
      for (int k = 0; k < options_.rank; ++k) {
        AddScaled(p[k * matrix.rows + row], value + row * matrix.cols, matrix.cols, q + k * matrix.cols);
      }
    }
  }
}

void PowerSgdReducer::Rebuild(const ReduceContext& context) {
  const CodecTimer timer(coder_);
  ExchangeBuffers& buffers = *context.buffers;
  const float share = context.scale * static_cast<float>(parts_.ranks());
  for (Matrix& matrix : matrices_) {
    const float* const p = buffers.sum.floats() + matrix.p;
    const float* const q = buffers.decoded.floats() + matrix.q;
    const TensorView flat = matrix.tensor.gradient.Reshape({matrix.tensor.gradient.size()});
    const bool is_finite = matrix.is_finite && AllFinite(q, options_.rank * matrix.cols);
    if (!is_finite) std::fill(row_.begin(), row_.end(), std::numeric_limits<float>::quiet_NaN());
    const float* const value = Value(matrix, buffers.values.floats());
    float* const feedback = parts_.feedback(matrix.tensor.index);
    for (int64_t row = 0; row < matrix.rows; ++row) {
      if (is_finite) {
        std::fill_n(row_.data(), matrix.cols, 0.0f);
        for (int k = 0; k < options_.rank; ++k) {
          AddScaled(p[k * matrix.rows + row], q + k * matrix.cols, matrix.cols, row_.data());
        }
        for (int64_t i = 0; i < matrix.cols; ++i) {
          feedback[row * matrix.cols + i] = value[row * matrix.cols + i] - row_[static_cast<size_t>(i)] / share;
        }
      }
      StoreInto(row_.data(), flat.Slice(row * matrix.cols, matrix.cols));
    }
    if (is_finite) std::copy_n(q, options_.rank * matrix.cols, parts_.factor(matrix.tensor.index));
  }
}

}  // namespace trainyard::comm
