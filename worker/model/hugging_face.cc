#include "worker/model/hugging_face.h"

#include <algorithm>
#include <map>
#include <memory>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/check.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "kernels/pointwise/elementwise.h"
#include "kernels/quant/cast.h"
#include "nlohmann/json.hpp"
#include "worker/model/packed_config.h"

namespace trainyard::model {
namespace {

using kernels::DType;
using kernels::TensorView;
using Json = nlohmann::ordered_json;

constexpr const char* kTokenizerFiles[] = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
                                           "vocab.json", "merges.txt"};

// The files that hold the weights, by the folder's index or its one file.
absl::StatusOr<std::vector<std::string>> WeightFiles(const std::string& directory) {
  const std::string index_path = JoinPath(directory, "model.safetensors.index.json");
  if (!FileExists(index_path)) return std::vector<std::string>{"model.safetensors"};
  TY_ASSIGN_OR_RETURN(const std::string text, ReadFile(index_path));
  const Json index = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!index.is_object() || !index.contains("weight_map") || !index.at("weight_map").is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(index_path, ": weight_map is not an object"));
  }
  std::set<std::string> files;
  for (const auto& [tensor, file] : index.at("weight_map").items()) {
    if (!file.is_string() || absl::StrContains(file.get<std::string>(), "/")) {
      return absl::InvalidArgumentError(absl::StrCat(index_path, ": weight_map: ", tensor, ": ", file.dump(),
                                                     " is not the name of a file in the folder"));
    }
    files.insert(file.get<std::string>());
  }
  return std::vector<std::string>(files.begin(), files.end());
}

std::string ShapeText(const std::vector<int64_t>& shape) {
  return absl::StrCat("(", absl::StrJoin(shape, ", "), ")");
}

// Converts one stored tensor into `out`, which has as many elements.
absl::Status ConvertInto(const SafetensorsReader& file, const SafetensorsEntry& entry, const TensorView& out,
                         kernels::Stream& stream) {
  const int64_t size = out.size();
  const DType dtype = entry.dtype.value_or(DType::kU8);
  // A view wants a mutable pointer; nothing writes through it.
  const TensorView stored(const_cast<void*>(file.Data(entry)), dtype, {size});
  const TensorView flat(out.data(), out.dtype(), {size});
  if (dtype == DType::kF32 || dtype == DType::kBF16) {
    Convert({.x = stored, .y = flat}, stream);
  } else if (dtype == DType::kF16 && out.dtype() == DType::kF32) {
    Widen({.x = stored, .y = flat}, stream);
  } else if (dtype == DType::kF16) {
    std::vector<float> wide(static_cast<size_t>(size));
    const TensorView view(wide.data(), DType::kF32, {size});
    Widen({.x = stored, .y = view}, stream);
    Convert({.x = view, .y = flat}, stream);
  } else {
    return absl::InvalidArgumentError(
        absl::StrCat(file.path(), ": ", entry.name, ": dtype ", entry.format, " is not one of F32, F16, BF16"));
  }
  return absl::OkStatus();
}

absl::StatusOr<int64_t> WriteText(const std::string& directory, const char* name, const std::string& text) {
  TY_RETURN_IF_ERROR(WriteFileAtomic(JoinPath(directory, name), text));
  return static_cast<int64_t>(text.size());
}

absl::StatusOr<int64_t> WriteWeights(const ModelConfig& config, const std::vector<TensorView>& tensors,
                                     const std::string& path) {
  const std::vector<Parameter> parameters = ListParameters(config);
  TY_CHECK_EQ(parameters.size(), tensors.size());
  std::vector<SafetensorsTensorSpec> specs;
  std::map<std::string, TensorView> rows_of;
  for (size_t i = 0; i < parameters.size(); ++i) {
    for (const HuggingFacePart& part : parameters[i].parts) {
      std::vector<int64_t> shape = parameters[i].shape;
      shape[0] = part.rows;
      specs.push_back({part.name, tensors[i].dtype(), shape});
      rows_of[part.name] = tensors[i].Slice(part.row_begin, part.rows);
    }
  }
  TY_ASSIGN_OR_RETURN(SafetensorsWriter writer, SafetensorsWriter::Create(path, std::move(specs), {{"format", "pt"}}));
  for (const SafetensorsTensorSpec& spec : writer.order()) {
    const TensorView& rows = rows_of.at(spec.name);
    TY_RETURN_IF_ERROR(writer.Append(spec.name, rows.data(), static_cast<uint64_t>(rows.bytes())));
  }
  TY_ASSIGN_OR_RETURN(const SafetensorsFileInfo info, writer.Finish());
  return static_cast<int64_t>(info.bytes);
}

// Copies what `source` has of a tokenizer; a tokenizer.json alone gets the small file by which transformers finds it.
absl::StatusOr<int64_t> CopyTokenizer(const ModelConfig& config, const std::string& source,
                                      const std::string& directory) {
  int64_t bytes = 0;
  for (const char* name : kTokenizerFiles) {
    if (!FileExists(JoinPath(source, name))) continue;
    TY_ASSIGN_OR_RETURN(const std::string text, ReadFile(JoinPath(source, name)));
    TY_ASSIGN_OR_RETURN(const int64_t written, WriteText(directory, name, text));
    bytes += written;
  }
  if (!FileExists(JoinPath(directory, "tokenizer.json"))) return bytes;
  if (!FileExists(JoinPath(directory, "tokenizer_config.json"))) {
    Json tokenizer;
    tokenizer["tokenizer_class"] = "PreTrainedTokenizerFast";
    tokenizer["model_max_length"] = config.max_positions;
    tokenizer["clean_up_tokenization_spaces"] = false;
    TY_ASSIGN_OR_RETURN(const std::string vocabulary, ReadFile(JoinPath(directory, "tokenizer.json")));
    if (absl::StrContains(vocabulary, "\"<|endoftext|>\"")) tokenizer["eos_token"] = "<|endoftext|>";
    TY_ASSIGN_OR_RETURN(const int64_t written, WriteText(directory, "tokenizer_config.json", tokenizer.dump(2) + "\n"));
    bytes += written;
  }
  return bytes;
}

}  // namespace

absl::StatusOr<ModelConfig> ReadConfig(const std::string& directory) {
  const std::string path = JoinPath(directory, "config.json");
  TY_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  TY_ASSIGN_OR_RETURN(ModelConfig config, ParseConfigJson(text, path));
  const std::string generation_path = JoinPath(directory, "generation_config.json");
  if (FileExists(generation_path)) {
    TY_ASSIGN_OR_RETURN(const std::string generation, ReadFile(generation_path));
    const Json root = Json::parse(generation, nullptr, /*allow_exceptions=*/false);
    if (root.is_object() && root.contains("eos_token_id")) {
      const Json& ids = root.at("eos_token_id");
      for (const Json& id : ids.is_array() ? ids : Json::array({ids})) {
        if (!id.is_number_integer()) continue;
        const int64_t value = id.get<int64_t>();
        if (std::find(config.eos_ids.begin(), config.eos_ids.end(), value) == config.eos_ids.end()) {
          config.eos_ids.push_back(value);
        }
      }
    }
  }
  return config;
}

absl::Status ImportTensor(const SafetensorsReader& file, const std::string& name, const TensorView& out,
                          kernels::Stream& stream) {
  TY_ASSIGN_OR_RETURN(const SafetensorsEntry* const entry, file.Find(name));
  std::vector<int64_t> expected;
  for (int axis = 0; axis < out.rank(); ++axis) expected.push_back(out.dim(axis));
  if (entry->shape != expected) {
    return absl::InvalidArgumentError(absl::StrCat(file.path(), ": ", name, ": shape ", ShapeText(entry->shape),
                                                   ", but config.json makes it ", ShapeText(expected)));
  }
  return ConvertInto(file, *entry, out, stream);
}

absl::Status ImportWeights(const std::string& directory, const ModelConfig& config,
                           const std::vector<TensorView>& tensors, kernels::Stream& stream,
                           const std::function<void(size_t tensor)>& on_tensor) {
  const std::string config_path = JoinPath(directory, "config.json");
  if (FileExists(config_path)) {
    TY_ASSIGN_OR_RETURN(const std::string text, ReadFile(config_path));
    TY_ASSIGN_OR_RETURN(const std::string method, QuantizationMethod(text, config_path));
    if (!method.empty()) {
      return absl::InvalidArgumentError(absl::StrCat(config_path, ": quantization_config: weights are codes (", method,
                                                     "), where floats are needed: take the float model"));
    }
  }
  TY_ASSIGN_OR_RETURN(const std::vector<std::string> names, WeightFiles(directory));
  std::vector<SafetensorsReader> files;
  std::map<std::string, size_t> file_of;
  for (const std::string& name : names) {
    TY_ASSIGN_OR_RETURN(SafetensorsReader file, SafetensorsReader::Open(JoinPath(directory, name)));
    for (const auto& entry : file.entries()) file_of[entry.first] = files.size();
    files.push_back(std::move(file));
  }

  const std::vector<Parameter> parameters = ListParameters(config);
  TY_CHECK_EQ(parameters.size(), tensors.size());
  for (size_t i = 0; i < parameters.size(); ++i) {
    for (const HuggingFacePart& part : parameters[i].parts) {
      const auto found = file_of.find(part.name);
      if (found == file_of.end()) {
        return absl::InvalidArgumentError(absl::StrCat(directory, ": tensor ", part.name, " is missing"));
      }
      TY_RETURN_IF_ERROR(
          ImportTensor(files[found->second], part.name, tensors[i].Slice(part.row_begin, part.rows), stream));
      file_of.erase(found);
    }
    if (on_tensor) on_tensor(i);
  }
  for (const auto& [name, file] : file_of) {
    // Older files keep tables that follow from config.json, and a copy of a tied head.
    if (absl::EndsWith(name, "rotary_emb.inv_freq") || (config.tied_head && name == "lm_head.weight")) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(files[file].path(), ": ", name, " belongs to no part of this network"));
  }
  return absl::OkStatus();
}

absl::StatusOr<int64_t> ExportWithoutWeights(const ModelConfig& config, const std::string& config_json,
                                             const ExportOptions& options) {
  TY_RETURN_IF_ERROR(MakeDirs(options.directory));
  TY_ASSIGN_OR_RETURN(int64_t bytes, WriteText(options.directory, "config.json", config_json));
  Json generation;
  generation["_from_model_config"] = true;
  if (!config.eos_ids.empty()) generation["eos_token_id"] = config.eos_ids;
  TY_ASSIGN_OR_RETURN(const int64_t generation_bytes,
                      WriteText(options.directory, "generation_config.json", generation.dump(2) + "\n"));
  bytes += generation_bytes;
  if (!options.tokenizer_source.empty()) {
    TY_ASSIGN_OR_RETURN(const int64_t tokenizer, CopyTokenizer(config, options.tokenizer_source, options.directory));
    bytes += tokenizer;
  }
  return bytes;
}

absl::StatusOr<int64_t> ExportModel(const ModelConfig& config, const std::vector<TensorView>& tensors,
                                    const ExportOptions& options) {
  const char* const dtype = tensors.front().dtype() == DType::kBF16 ? "bfloat16" : "float32";
  TY_ASSIGN_OR_RETURN(const int64_t bytes, ExportWithoutWeights(config, ToConfigJson(config, dtype), options));
  TY_ASSIGN_OR_RETURN(const int64_t weights,
                      WriteWeights(config, tensors, JoinPath(options.directory, "model.safetensors")));
  return bytes + weights;
}

}  // namespace trainyard::model
