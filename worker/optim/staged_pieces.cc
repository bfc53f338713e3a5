#include "worker/optim/staged_pieces.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace trainyard::optim {
namespace {

using kernels::CopyStream;
using kernels::DType;
using kernels::Stream;
using kernels::TensorView;

// Tensors of a piece begin at multiples of this, as all tensors of an arena.
constexpr int64_t kAlignment = 64;

int64_t BytesOf(const TensorView& home) {
  return home ? (home.bytes() + kAlignment - 1) / kAlignment * kAlignment : 0;
}

}  // namespace

StagedPieces::StagedPieces(std::vector<std::vector<TensorView>> homes, kernels::Arena& arena)
    : homes_(std::move(homes)) {
  TY_CHECK(arena.device() != kernels::Device::kCpu);
  int64_t longest = 0;
  for (const std::vector<TensorView>& piece : homes_) {
    int64_t bytes = 0;
    for (const TensorView& home : piece) bytes += BytesOf(home);
    longest = std::max(longest, bytes);
  }
  std::array<TensorView, 2> buffers;
  for (TensorView& buffer : buffers) buffer = arena.Allocate("staging", DType::kU8, {longest});
  for (const std::vector<TensorView>& piece : homes_) {
    char* next = static_cast<char*>(buffers[staged_.size() % buffers.size()].data());
    std::vector<TensorView>& staged = staged_.emplace_back();
    for (const TensorView& home : piece) {
      staged.push_back(home ? TensorView(next, home.dtype(), {home.size()}) : TensorView());
      next += BytesOf(home);
    }
  }
  if (arena.counts_only()) return;
  for (std::unique_ptr<CopyStream>& copies : copies_) copies = std::make_unique<CopyStream>();
}

void StagedPieces::ForEach(Stream& stream, absl::FunctionRef<void(size_t piece)> update) const {
  const size_t pieces = homes_.size();
  for (size_t i = 0; i < std::min(pieces, copies_.size()); ++i) {
    // What `stream` did before the call may have written the homes.
    CopiesOf(i).After(stream);
    Bring(i);
  }
  for (size_t i = 0; i < pieces; ++i) {
    CopiesOf(i).Before(stream);
    update(i);
    CopiesOf(i).After(stream);
    TakeHome(i);
    if (i + copies_.size() < pieces) Bring(i + copies_.size());
  }
  for (const std::unique_ptr<CopyStream>& copies : copies_) copies->Before(stream);
}

void StagedPieces::Bring(size_t piece) const {
  for (size_t k = 0; k < homes_[piece].size(); ++k) {
    if (homes_[piece][k]) CopiesOf(piece).Copy(homes_[piece][k], staged_[piece][k]);
  }
}

void StagedPieces::TakeHome(size_t piece) const {
  for (size_t k = 0; k < homes_[piece].size(); ++k) {
    if (homes_[piece][k]) CopiesOf(piece).Copy(staged_[piece][k], homes_[piece][k]);
  }
}

}  // namespace trainyard::optim
