// Moments of optimizers: one zeroed tensor a parameter, in the arena and in the checkpoint.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/core/arena.h"
#include "worker/optim/optimizer.h"

namespace trainyard::optim {

kernels::DType DTypeOf(spec::MomentType type);

// Where state lives between updates. On the host: in pinned memory, if the arena is of a device other than the CPU.
enum class Place { kDevice, kHost };
inline Place PlaceOf(bool is_offloaded) {
  return is_offloaded ? Place::kHost : Place::kDevice;
}

// A tensor of `elements`, booked under "moments" and added to `state` as "<kind>/<parameter>". If the parameter is a
// shard it is a part, one element of it for each `stride` of the parameter's.
kernels::TensorView AllocateMoment(const std::string& kind, const OptimizerParameter& parameter, kernels::DType dtype,
                                   int64_t elements, kernels::Arena& arena, std::vector<NamedTensor>* state,
                                   int64_t stride = 1, Place place = Place::kDevice);

// One for each parameter, of its size.
std::vector<kernels::TensorView> AllocateMoments(const std::string& kind,
                                                 const std::vector<OptimizerParameter>& parameters,
                                                 kernels::DType dtype, kernels::Arena& arena,
                                                 std::vector<NamedTensor>* state, Place place = Place::kDevice);

// The random words of one parameter in one update; `purpose` is the op's.
kernels::PhiloxKey RandomOf(const UpdateArgs& args, const OptimizerParameter& parameter);

}  // namespace trainyard::optim
