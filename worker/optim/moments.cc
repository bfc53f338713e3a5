#include "worker/optim/moments.h"

#include "absl/strings/str_cat.h"

namespace trainyard::optim {

using kernels::DType;
using kernels::TensorView;

DType DTypeOf(spec::MomentType type) {
  switch (type) {
    case spec::MomentType::kFp32:
      return DType::kF32;
    case spec::MomentType::kBf16:
      return DType::kBF16;
    case spec::MomentType::kE4M3:
      return DType::kF8E4M3;
  }
  return DType::kF32;
}

TensorView AllocateMoment(const std::string& kind, const OptimizerParameter& parameter, DType dtype, int64_t elements,
                          kernels::Arena& arena, std::vector<NamedTensor>* state, int64_t stride, Place place) {
  const TensorView moment = place == Place::kHost ? arena.AllocateShared("moments", dtype, {elements})
                                                  : arena.Allocate("moments", dtype, {elements});
  state->push_back({.name = absl::StrCat(kind, "/", parameter.name),
                    .tensor = moment,
                    .part_begin = parameter.first_element / stride,
                    .whole_size = (parameter.whole_size + stride - 1) / stride});
  return moment;
}

std::vector<TensorView> AllocateMoments(const std::string& kind, const std::vector<OptimizerParameter>& parameters,
                                        DType dtype, kernels::Arena& arena, std::vector<NamedTensor>* state,
                                        Place place) {
  std::vector<TensorView> moments;
  for (const OptimizerParameter& parameter : parameters) {
    moments.push_back(
        AllocateMoment(kind, parameter, dtype, parameter.weight.size(), arena, state, /*stride=*/1, place));
  }
  return moments;
}

kernels::PhiloxKey RandomOf(const UpdateArgs& args, const OptimizerParameter& parameter) {
  return {.seed = args.seed, .step = static_cast<uint32_t>(args.update), .tensor = parameter.index};
}

}  // namespace trainyard::optim
