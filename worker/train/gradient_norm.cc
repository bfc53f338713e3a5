#include "worker/train/gradient_norm.h"

#include <utility>

#include "base/check.h"
#include "base/status_macros.h"

namespace trainyard::train {

using kernels::DType;
using kernels::TensorView;

GradientNorm::GradientNorm(const std::vector<TensorView>& parts, comm::ShardMap map, int rank, kernels::Arena& arena)
    : map_(std::move(map)), rank_(rank), cursors_(static_cast<size_t>(map_.ranks())) {
  TY_CHECK_EQ(parts.size(), map_.tensors());
  for (size_t i = 0; i < parts.size(); ++i) {
    if (parts[i]) pieces_.push_back({parts[i], comm::ShardGrain(map_.size(i))});
  }
  int64_t total = 0;
  for (int owner = 0; owner < map_.ranks(); ++owner) {
    int64_t grains = 0;
    for (size_t i = 0; i < map_.tensors(); ++i) grains += map_.grains(i, owner);
    if (owner == rank) own_begin_ = total;
    sum_bytes_.push_back(grains * static_cast<int64_t>(sizeof(double)));
    total += sum_bytes_.back();
  }
  TY_CHECK_EQ(SquareSumsBytes(pieces_), sum_bytes_[static_cast<size_t>(rank)]);
  sums_ = arena.AllocateShared("workspace", DType::kU8, {total});
  clip_factor_ = arena.AllocateShared("workspace", DType::kF32, {1});
}

int64_t GradientNorm::BytesSent() const {
  return sum_bytes_[static_cast<size_t>(rank_)] * (map_.ranks() - 1);
}

absl::Status GradientNorm::Measure(float max_norm, comm::Communicator* communicator, kernels::Stream& stream) {
  const int64_t own_bytes = sum_bytes_[static_cast<size_t>(rank_)];
  SquareSums({.pieces = pieces_, .sums = sums_.Slice(own_begin_, own_bytes)}, stream);
  TY_RETURN_IF_ERROR(stream.Synchronize());
  char* const memory = static_cast<char*>(sums_.data());
  if (map_.ranks() > 1) TY_RETURN_IF_ERROR(communicator->AllGatherBytes(memory + own_begin_, sum_bytes_, memory));

  const auto* next = reinterpret_cast<const double*>(memory);
  for (size_t owner = 0; owner < cursors_.size(); ++owner) {
    cursors_[owner] = next;
    next += sum_bytes_[owner] / static_cast<int64_t>(sizeof(double));
  }
  double squares = 0;
  for (size_t i = 0; i < map_.tensors(); ++i) {
    for (int owner = 0; owner < map_.ranks(); ++owner) {
      const double*& cursor = cursors_[static_cast<size_t>(owner)];
      for (const double* const end = cursor + map_.grains(i, owner); cursor < end; ++cursor) squares += *cursor;
    }
  }
  const kernels::NormAndFactor result = kernels::NormOfSquares(squares, max_norm);
  norm_ = result.norm;
  *clip_factor_.as<float>() = result.clip_factor;
  return absl::OkStatus();
}

}  // namespace trainyard::train
