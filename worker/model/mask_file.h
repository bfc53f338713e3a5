// masks.safetensors: which weights of a pruned model are zero by choice, beside its model.safetensors. One U8 tensor a
// pruned matrix, of the same name, with ceil(rows * cols / 8) bytes: element i of the matrix in row-major order is bit
// i % 8 of byte i / 8, set where the weight is kept; bits past the last are 0. Metadata: "format" "trainyard-masks-1",
// and what else the writer says ("method", "sparsity", "pattern").
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/core/tensor.h"

namespace trainyard::model {

struct MaskTensor {
  std::string name;
  kernels::TensorView bits;  // u8
};

// Returns the bytes of the file, "<directory>/masks.safetensors", which is replaced.
absl::StatusOr<int64_t> WriteMasks(const std::string& directory, const std::vector<MaskTensor>& masks,
                                   std::map<std::string, std::string> metadata);

}  // namespace trainyard::model
