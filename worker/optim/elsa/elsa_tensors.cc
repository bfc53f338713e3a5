#include "worker/optim/elsa/elsa_tensors.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/pattern.h"
#include "kernels/optim/blockwise/moment8.h"
#include "kernels/prune/mask.h"

namespace trainyard::optim {
namespace {

using kernels::Arena;
using kernels::DType;
using kernels::StoredTensor;
using kernels::TensorView;
using spec::ElsaOptions;

bool IsBlockMatrix(const OptimizerParameter& parameter) {
  return parameter.weight.rank() == 2 && absl::StartsWith(parameter.name, "layers.");
}

TensorView RowsOf(const TensorView& tensor, const OptimizerPart& part) {
  return tensor ? tensor.Slice(part.row_begin, part.rows) : tensor;
}

DType TypeOf(ElsaOptions::DualType type) {
  switch (type) {
    case ElsaOptions::DualType::kFp32:
      return DType::kF32;
    case ElsaOptions::DualType::kBf16:
      return DType::kBF16;
    case ElsaOptions::DualType::kE4M3:
      return DType::kF8E4M3;
    case ElsaOptions::DualType::kE5M2:
      return DType::kF8E5M2;
  }
  return DType::kF32;
}

// Allocations of one tensor, each a state under "<kind>/<tensor>".
class Allocator {
 public:
  Allocator(const ElsaTensor& tensor, Arena& arena, std::vector<NamedTensor>* state)
      : tensor_(tensor), arena_(arena), state_(state) {}

  TensorView Take(const char* purpose, const std::string& kind, DType dtype, int64_t size) {
    const TensorView view = arena_.Allocate(purpose, dtype, {size});
    state_->push_back({absl::StrCat(kind, "/", tensor_.name), view});
    return view;
  }
  StoredTensor TakeStored(const std::string& kind, DType dtype) {
    StoredTensor stored;
    stored.values = Take("pruning", kind, dtype, tensor_.size());
    if (HasScale(dtype)) stored.scale = Take("pruning", kind + ".scale", DType::kF32, 1);
    return stored;
  }

 private:
  const ElsaTensor& tensor_;
  Arena& arena_;
  std::vector<NamedTensor>* const state_;
};

void AllocateMoments(const ElsaOptions& options, Arena& arena, ElsaTensor* tensor, std::vector<NamedTensor>* state) {
  Allocator allocator(*tensor, arena, state);
  if (options.moments == ElsaOptions::Moments::kInt8 && tensor->rows > 0) {
    const int64_t blocks = kernels::Moment8Blocks(tensor->size());
    tensor->m = allocator.Take("moments", "elsa.m", DType::kU8, tensor->size());
    tensor->v = allocator.Take("moments", "elsa.v", DType::kU8, tensor->size());
    tensor->m_scale = allocator.Take("moments", "elsa.m.scale", DType::kF32, blocks);
    tensor->v_scale = allocator.Take("moments", "elsa.v.scale", DType::kF32, blocks);
  } else {
    tensor->m = allocator.Take("moments", "elsa.m", DType::kF32, tensor->size());
    tensor->v = allocator.Take("moments", "elsa.v", DType::kF32, tensor->size());
  }
}

void AllocatePruning(const ElsaOptions& options, Arena& arena, ElsaTensor* tensor, std::vector<NamedTensor>* state) {
  Allocator allocator(*tensor, arena, state);
  if (options.state_layout == ElsaOptions::StateLayout::kMerged) {
    tensor->z = allocator.TakeStored("elsa.s", TypeOf(options.z_dtype));
  } else {
    tensor->z = allocator.TakeStored("elsa.z", TypeOf(options.z_dtype));
    tensor->u = allocator.TakeStored("elsa.u", TypeOf(options.u_dtype));
  }
  const int64_t bytes = kernels::MaskBytes(tensor->size());
  tensor->mask = allocator.Take("pruning", "elsa.mask", DType::kU8, bytes);
  tensor->first_mask = allocator.Take("pruning", "elsa.first_mask", DType::kU8, bytes);
}

}  // namespace

std::vector<ElsaTensor> ListElsaTensors(const ElsaOptions& options, const std::vector<OptimizerParameter>& parameters) {
  std::vector<ElsaTensor> tensors;
  for (const OptimizerParameter& parameter : parameters) {
    ElsaTensor whole;
    whole.name = parameter.name;
    whole.weight = parameter.weight;
    whole.master = parameter.master;
    whole.gradient = parameter.gradient;
    whole.decays = parameter.decays;
    if (parameter.weight.rank() == 2) {
      whole.rows = parameter.weight.dim(0);
      whole.cols = parameter.weight.dim(1);
    }
    if (!IsBlockMatrix(parameter) || MatchesAny(options.exclude, parameter.name)) {
      tensors.push_back(whole);
      continue;
    }
    std::vector<OptimizerPart> parts = parameter.parts;
    if (parts.empty()) parts = {{parameter.name, 0, whole.rows}};
    for (const OptimizerPart& part : parts) {
      ElsaTensor tensor = whole;
      tensor.name = part.name;
      tensor.rows = part.rows;
      tensor.weight = RowsOf(whole.weight, part);
      tensor.master = RowsOf(whole.master, part);
      tensor.gradient = RowsOf(whole.gradient, part);
      tensor.is_pruned = !MatchesAny(options.exclude, part.name);
      tensors.push_back(tensor);
    }
  }
  return tensors;
}

void AllocateStates(const ElsaOptions& options, Arena& arena, std::vector<ElsaTensor>* tensors,
                    std::vector<NamedTensor>* state) {
  for (ElsaTensor& tensor : *tensors) {
    AllocateMoments(options, arena, &tensor, state);
    if (tensor.is_pruned) AllocatePruning(options, arena, &tensor, state);
  }
}

}  // namespace trainyard::optim
