#include <map>
#include <memory>

#include "base/check.h"
#include "base/file.h"
#include "base/pattern.h"
#include "base/status_macros.h"
#include "kernels/quant/lsq.h"
#include "kernels/quant/packed_rows.h"
#include "kernels/quant/quest.h"
#include "worker/linear/quest_operands.h"
#include "worker/model/linear_sites.h"
#include "worker/model/packed_config.h"
#include "worker/model/packed_model.h"
#include "worker/model/safetensors.h"

namespace trainyard::model {
namespace {

using kernels::DType;
using kernels::PackedBytes;
using kernels::TensorView;

// The tensors of a file, and the memory of those that are made for it.
class Contents {
 public:
  TensorView Make(DType dtype, std::initializer_list<int64_t> shape) {
    const int64_t bytes = TensorView(nullptr, dtype, shape).bytes();
    made_.push_back(std::make_unique<char[]>(static_cast<size_t>(bytes)));
    return {made_.back().get(), dtype, shape};
  }
  void Add(const std::string& name, const TensorView& tensor) {
    SafetensorsTensorSpec spec{.name = name, .dtype = tensor.dtype(), .shape = {}};
    for (int axis = 0; axis < tensor.rank(); ++axis) spec.shape.push_back(tensor.dim(axis));
    specs_.push_back(std::move(spec));
    data_.push_back(tensor.data());
  }
  absl::StatusOr<SafetensorsFileInfo> Write(const std::string& path) const {
    return WriteSafetensors(path, specs_, data_, {{"format", "pt"}});
  }

 private:
  std::vector<std::unique_ptr<char[]>> made_;
  std::vector<SafetensorsTensorSpec> specs_;
  std::vector<const void*> data_;
};

struct Matrix {
  const Parameter& parameter;
  TensorView weight;
  TensorView learned;  // its layer's steps (QuestStep), or absent
};

// Codes, steps and what else belongs to the matrix, cut like the matrix into the tensors of the file.
void AddCodes(const Matrix& matrix, const spec::LinearQuest& options, Contents& contents, kernels::Stream& stream) {
  const TensorView& weight = matrix.weight;
  const linear::QuestOperand operand = linear::OperandsOf(options).weight;
  const int64_t rows = weight.dim(0);
  const int64_t cols = weight.dim(1);
  const TensorView steps = contents.Make(DType::kF32, {rows});
  const TensorView packed = contents.Make(DType::kU8, {rows, PackedBytes(cols, PackedCodeBits(options))});
  TensorView sums, kept;
  if (HasCodeSums(options)) sums = contents.Make(DType::kI32, {rows});
  if (HasKept(options)) kept = contents.Make(DType::kU8, {rows, PackedBytes(cols, 1)});
  if (operand.learns_step())
    LsqRowSteps({.step = matrix.learned.Slice(linear::kWeightStep, 1), .steps = steps}, stream);
  TensorView activation_step;
  if (HasActivationStep(options)) {
    activation_step = contents.Make(DType::kF32, {1});
    LsqRowSteps({.step = matrix.learned.Slice(linear::kActivationStep, 1), .steps = activation_step}, stream);
  }
  std::vector<uint8_t> bytes(static_cast<size_t>(rows * cols));
  const TensorView codes(bytes.data(), DType::kU8, {rows, cols});
  QuestQuantize({.v = weight,
                 .format = *operand.format,
                 .rotate_group = operand.rotate_group,
                 .steps = steps,
                 .codes = codes,
                 .code_sums = sums,
                 .kept = kept},
                stream);
  PackRows({.codes = codes, .packed = packed, .bits = PackedCodeBits(options)}, stream);
  for (const HuggingFacePart& part : matrix.parameter.parts) {
    const auto rows_of = [&](const TensorView& whole) { return whole.Slice(part.row_begin, part.rows); };
    contents.Add(CodesName(part.name), rows_of(packed));
    contents.Add(StepsName(part.name), rows_of(steps));
    if (sums) contents.Add(CodeSumsName(part.name), rows_of(sums));
    if (kept) contents.Add(KeptName(part.name), rows_of(kept));
    if (activation_step) contents.Add(ActivationStepName(part.name), activation_step);
  }
}

}  // namespace

absl::StatusOr<int64_t> ExportPackedModel(const ModelConfig& config, const spec::LinearQuest& options,
                                          const std::vector<std::string>& exclude,
                                          const std::vector<TensorView>& tensors, const ExportOptions& export_options,
                                          kernels::Stream& stream) {
  std::map<std::string, std::string> packed;  // matrices, and the parameters of their layers' scheme
  ForEachSite(ListLinearSites(config, 1, tensors.front().dtype()), [&](const linear::LinearSite& site) {
    if (!MatchesAny(exclude, site.name)) packed[site.name + ".weight"] = site.name + ".scheme";
  });
  const std::vector<Parameter> parameters = ListParameters(config);
  TY_CHECK_EQ(parameters.size(), tensors.size());
  std::map<std::string, TensorView> learned;
  for (size_t i = 0; i < parameters.size(); ++i) {
    if (parameters[i].belongs_to_scheme) learned[parameters[i].name] = tensors[i];
  }
  Contents contents;
  for (size_t i = 0; i < parameters.size(); ++i) {
    if (const auto matrix = packed.find(parameters[i].name); matrix != packed.end()) {
      AddCodes({parameters[i], tensors[i], learned[matrix->second]}, options, contents, stream);
      continue;
    }
    for (const HuggingFacePart& part : parameters[i].parts) {
      contents.Add(part.name, tensors[i].Slice(part.row_begin, part.rows));
    }
  }
  const char* const dtype = tensors.front().dtype() == DType::kBF16 ? "bfloat16" : "float32";
  TY_ASSIGN_OR_RETURN(
      const int64_t bytes,
      ExportWithoutWeights(config, AddQuantization(ToConfigJson(config, dtype), options), export_options));
  TY_ASSIGN_OR_RETURN(const SafetensorsFileInfo info,
                      contents.Write(JoinPath(export_options.directory, "model.safetensors")));
  return bytes + static_cast<int64_t>(info.bytes);
}

}  // namespace trainyard::model
