#include "worker/tools/loaded_model.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "kernels/pointwise/elementwise.h"
#include "kernels/quant/coded_matrix.h"
#include "worker/ckpt/checkpoint.h"
#include "worker/model/hugging_face.h"
#include "worker/model/packed_config.h"
#include "worker/model/packed_model.h"

namespace trainyard::tools {
namespace {

absl::Status AllocateWeights(LoadedModel* model) {
  kernels::Arena counting = kernels::Arena::CountOnly();
  AllocateWeights(model->config, model->dtype, "weights", counting);
  TY_ASSIGN_OR_RETURN(kernels::Arena arena, kernels::Arena::Reserve(counting.used_bytes()));
  model->arena = std::make_unique<kernels::Arena>(std::move(arena));
  model->weights = AllocateWeights(model->config, model->dtype, "weights", *model->arena);
  return absl::OkStatus();
}

// Of a weight that its training kept as codes (worker/train/coded_weights.h).
absl::Status DecodeWeight(const ckpt::CheckpointReader& reader, const std::string& name, const kernels::TensorView& out,
                          kernels::Stream& stream) {
  kernels::CodedMatrix coded;
  TY_ASSIGN_OR_RETURN(coded.codes, reader.Tensor(absl::StrCat("weight.codes/", name)));
  TY_ASSIGN_OR_RETURN(coded.scales, reader.Tensor(absl::StrCat("weight.scales/", name)));
  const kernels::DType format = coded.codes.dtype(), scale = coded.scales.dtype();
  const bool is_known = (format == kernels::DType::kF8E4M3 || format == kernels::DType::kU8) &&
                        (scale == kernels::DType::kF32 || scale == kernels::DType::kF16);
  if (!is_known || coded.size() != out.size() || coded.scales.size() == 0 || coded.size() % coded.scales.size() != 0 ||
      (format == kernels::DType::kU8 && coded.span() % 2 != 0)) {
    return absl::DataLossError(absl::StrCat(name, ": codes or scales do not fit the config"));
  }
  DecodeMatrix({.matrix = coded, .y = out}, stream);
  return absl::OkStatus();
}

absl::StatusOr<LoadedModel> LoadCheckpoint(const std::string& directory, kernels::DType dtype,
                                           kernels::Stream& stream) {
  TY_ASSIGN_OR_RETURN(const v1::CheckpointManifest manifest, ckpt::ReadManifest(directory));
  // The manifest names its folder relative to the job's root: .../attempt-<n>-fence-<f>/checkpoints/step-<s>.
  const std::string job_root = JoinPath(directory, "../../..");
  TY_ASSIGN_OR_RETURN(const std::unique_ptr<ckpt::CheckpointReader> reader,
                      ckpt::CheckpointReader::Open(job_root, manifest, /*rank=*/-1));
  LoadedModel model;
  model.dtype = dtype;
  TY_ASSIGN_OR_RETURN(const std::string config, reader->Text("config"));
  TY_ASSIGN_OR_RETURN(model.config, model::ParseConfigJson(config, directory));
  TY_ASSIGN_OR_RETURN(model.tokenizer_directory, reader->Text("data_directory"));
  TY_RETURN_IF_ERROR(AllocateWeights(&model));
  const std::vector<model::Parameter> parameters = ListParameters(model.config);
  for (size_t i = 0; i < parameters.size(); ++i) {
    if (reader->Has(absl::StrCat("weight.codes/", parameters[i].name))) {
      TY_RETURN_IF_ERROR(DecodeWeight(*reader, parameters[i].name, model.weights.all[i], stream));
      continue;
    }
    // Each rank may have written a part of it.
    std::vector<float> stored(static_cast<size_t>(model.weights.all[i].size()));
    const kernels::TensorView copy(stored.data(), kernels::DType::kF32, {model.weights.all[i].size()});
    const std::string name = absl::StrCat("weight/", parameters[i].name);
    if (const absl::Status read = reader->ReadTensorPart(name, 0, copy.size(), copy); !read.ok()) {
      return absl::DataLossError(absl::StrCat(directory, ": does not fit its config: ", read.message()));
    }
    Convert({.x = copy, .y = model.weights.all[i]}, stream);
  }
  return model;
}

absl::StatusOr<LoadedModel> LoadPacked(const std::string& directory, kernels::DType dtype, kernels::Stream& stream) {
  TY_ASSIGN_OR_RETURN(model::PackedModel packed, model::LoadPackedModel(directory, dtype, stream));
  LoadedModel model;
  model.config = std::move(packed.config);
  model.dtype = dtype;
  model.arena = std::move(packed.arena);
  model.weights = std::move(packed.weights);
  model.scheme = std::move(packed.scheme);
  model.tokenizer_directory = directory;
  return model;
}

}  // namespace

absl::StatusOr<LoadedModel> LoadModel(const std::string& directory, kernels::DType dtype, kernels::Stream& stream) {
  if (!FileExists(JoinPath(directory, "config.json"))) {
    if (FileExists(JoinPath(directory, "manifest.json"))) return LoadCheckpoint(directory, dtype, stream);
    return absl::NotFoundError(
        absl::StrCat(directory, ": neither a model (config.json) nor a checkpoint (manifest.json)"));
  }
  const std::string config_path = JoinPath(directory, "config.json");
  TY_ASSIGN_OR_RETURN(const std::string config, ReadFile(config_path));
  TY_ASSIGN_OR_RETURN(const std::string method, model::QuantizationMethod(config, config_path));
  if (!method.empty()) return LoadPacked(directory, dtype, stream);
  LoadedModel model;
  model.dtype = dtype;
  model.tokenizer_directory = directory;
  TY_ASSIGN_OR_RETURN(model.config, model::ReadConfig(directory));
  TY_RETURN_IF_ERROR(AllocateWeights(&model));
  TY_RETURN_IF_ERROR(ImportWeights(directory, model.config, model.weights.all, stream));
  return model;
}

absl::StatusOr<kernels::DType> ParseDType(const std::string& name) {
  if (name == "fp32") return kernels::DType::kF32;
  if (name == "bf16") return kernels::DType::kBF16;
  return absl::InvalidArgumentError(absl::StrCat("--dtype: '", name, "' is not fp32 or bf16"));
}

}  // namespace trainyard::tools
