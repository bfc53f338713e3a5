#include "worker/model/offloaded_inputs.h"

#include "base/check.h"

namespace trainyard::model {

using kernels::CopyStream;
using kernels::Stream;
using kernels::TensorView;

OffloadedInputs::OffloadedInputs(const std::vector<TensorView>& inputs, kernels::Arena& arena)
    : inputs_(inputs.size()) {
  TY_CHECK(arena.device() != kernels::Device::kCpu);
  int before = -1;
  size_t buffer = 0;
  for (size_t block = 0; block < inputs.size(); ++block) {
    if (!inputs[block]) continue;
    inputs_[block] = {.here = inputs[block], .home = TensorView(), .buffer = buffer, .before = before};
    // This one takes the buffer of the one before the last.
    const int previous = before < 0 ? -1 : inputs_[static_cast<size_t>(before)].before;
    if (previous >= 0) {
      Input& leaving = inputs_[static_cast<size_t>(previous)];
      leaving.home =
          arena.AllocateShared("activations", leaving.here.dtype(), {leaving.here.dim(0), leaving.here.dim(1)});
    }
    before = static_cast<int>(block);
    buffer = 1 - buffer;
  }
  if (arena.counts_only()) return;
  for (std::unique_ptr<CopyStream>& copies : copies_) copies = std::make_unique<CopyStream>();
}

void OffloadedInputs::MakeRoom(size_t block, Stream& stream) const {
  if (inputs_[block].here) CopiesOf(inputs_[block]).Before(stream);
}

void OffloadedInputs::SendHome(size_t block, Stream& stream) const {
  const Input& input = inputs_[block];
  if (!input.home) return;
  CopiesOf(input).After(stream);
  CopiesOf(input).Copy(input.here, input.home);
}

void OffloadedInputs::Fetch(size_t block, Stream& stream) const {
  const Input& input = inputs_[block];
  if (!input.here) return;
  CopiesOf(input).Before(stream);
  if (input.before < 0) return;
  // The other buffer's last user is the block behind this one, of which `stream` has been given all.
  const Input& next = inputs_[static_cast<size_t>(input.before)];
  CopiesOf(next).After(stream);
  CopiesOf(next).Copy(next.home, next.here);
}

}  // namespace trainyard::model
