#include "worker/model/mask_file.h"

#include "base/check.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "worker/model/safetensors.h"

namespace trainyard::model {

absl::StatusOr<int64_t> WriteMasks(const std::string& directory, const std::vector<MaskTensor>& masks,
                                   std::map<std::string, std::string> metadata) {
  metadata["format"] = "trainyard-masks-1";
  std::vector<SafetensorsTensorSpec> specs;
  std::vector<const void*> data;
  for (const MaskTensor& mask : masks) {
    TY_CHECK(mask.bits.dtype() == kernels::DType::kU8);
    specs.push_back({mask.name, kernels::DType::kU8, {mask.bits.size()}});
    data.push_back(mask.bits.data());
  }
  TY_RETURN_IF_ERROR(MakeDirs(directory));
  TY_ASSIGN_OR_RETURN(const SafetensorsFileInfo info,
                      WriteSafetensors(JoinPath(directory, "masks.safetensors"), specs, data, metadata));
  return static_cast<int64_t>(info.bytes);
}

}  // namespace trainyard::model
