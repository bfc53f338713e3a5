#include "worker/optim/update_pieces.h"

#include <algorithm>
#include <utility>

namespace trainyard::optim {
namespace {

using kernels::Stream;
using kernels::TensorView;

constexpr int64_t kGroup = 128;
constexpr int64_t kMostElements = int64_t{1} << 21;

// Elements [begin, begin + count) of a tensor, or its absence.
TensorView Elements(const TensorView& tensor, int64_t begin, int64_t count) {
  return tensor ? tensor.Reshape({tensor.size()}).Slice(begin, count) : TensorView();
}

}  // namespace

int64_t PieceElements(int64_t elements) {
  return std::min((elements / 64 / kGroup + 1) * kGroup, kMostElements);
}

UpdatePieces::UpdatePieces(const std::vector<OptimizerParameter>& parameters, std::vector<UpdatedState> states,
                           Place masters, kernels::Arena& arena) {
  bool is_staged = masters == Place::kHost;
  for (const UpdatedState& state : states) is_staged = is_staged || state.place == Place::kHost;
  int64_t elements = 0;
  for (const OptimizerParameter& parameter : parameters) elements += parameter.weight.size();
  const int64_t most = is_staged ? PieceElements(elements) : std::max<int64_t>(elements, 1);

  for (size_t i = 0; i < parameters.size(); ++i) {
    const OptimizerParameter& parameter = parameters[i];
    for (int64_t begin = 0; begin < parameter.weight.size(); begin += most) {
      const int64_t count = std::min(most, parameter.weight.size() - begin);
      UpdatePiece& piece = pieces_.emplace_back();
      piece.parameter = &parameter;
      piece.weight = Elements(parameter.weight, begin, count);
      piece.master = Elements(parameter.master, begin, count);
      piece.gradient = Elements(parameter.gradient, begin, count);
      piece.first_element = parameter.first_element + begin;
      for (const UpdatedState& state : states) {
        piece.state.push_back(
            Elements(state.tensors[i], begin / state.stride, (count + state.stride - 1) / state.stride));
      }
    }
  }
  if (!is_staged) return;

  // Of each piece the masters, then the kinds of state; those that stay on the device are not staged.
  std::vector<std::vector<TensorView>> homes;
  for (const UpdatePiece& piece : pieces_) {
    homes.emplace_back().push_back(masters == Place::kHost ? piece.master : TensorView());
    for (size_t k = 0; k < states.size(); ++k) {
      homes.back().push_back(states[k].place == Place::kHost ? piece.state[k] : TensorView());
    }
  }
  staged_ = std::make_unique<StagedPieces>(std::move(homes), arena);
  for (size_t i = 0; i < pieces_.size(); ++i) {
    const std::vector<TensorView>& staged = staged_->staged(i);
    if (staged[0]) pieces_[i].master = staged[0];
    for (size_t k = 0; k < states.size(); ++k) {
      if (staged[k + 1]) pieces_[i].state[k] = staged[k + 1];
    }
  }
}

void UpdatePieces::ForEach(Stream& stream, absl::FunctionRef<void(const UpdatePiece& piece)> update) const {
  if (staged_ != nullptr) {
    staged_->ForEach(stream, [&](size_t piece) { update(pieces_[piece]); });
    return;
  }
  for (const UpdatePiece& piece : pieces_) update(piece);
}

}  // namespace trainyard::optim
