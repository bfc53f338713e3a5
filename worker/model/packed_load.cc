#include <cmath>
#include <cstring>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/check.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "kernels/gemm/int_gemm.h"
#include "kernels/quant/packed_rows.h"
#include "kernels/quant/quest.h"
#include "worker/linear/make_linear_scheme.h"
#include "worker/linear/packed_quest_scheme.h"
#include "worker/model/linear_sites.h"
#include "worker/model/packed_config.h"
#include "worker/model/packed_model.h"
#include "worker/model/safetensors.h"

namespace trainyard::model {
namespace {

using kernels::DType;
using kernels::PackedBytes;
using kernels::TensorView;
using linear::PackedQuestWeight;
using Kind = PackedQuestWeight::Kind;
using Grid = spec::LinearQuest::Grid;

// Reads one folder. Which matrices are codes is what the file has; how they are kept in memory follows from the grids.
class Loader {
 public:
  Loader(const ModelConfig& config, const spec::LinearQuest& options, DType dtype, const SafetensorsReader& file)
      : options_(options),
        dtype_(dtype),
        file_(file),
        parameters_(ListParameters(config)),
        config_(config),
        left_([&file] {
          std::set<std::string> names;
          for (const auto& entry : file.entries()) names.insert(entry.first);
          return names;
        }()) {
    ForEachSite(ListLinearSites(config, 1, dtype), [this](const linear::LinearSite& site) {
      site_of_[site.name + ".weight"] = site.index;
      sites_.push_back(site);
    });
    weights_.resize(sites_.empty() ? 0 : sites_.back().index + 1);  // blocks without attention or MLP leave numbers out
    const bool sums_integers = options.weight_grid == Grid::kInt && options.activation_grid == Grid::kInt;
    for (const Parameter& parameter : parameters_) {
      const auto site = site_of_.find(parameter.name);
      if (site == site_of_.end() || !file.Has(CodesName(parameter.parts.front().name))) continue;
      weights_[site->second].kind = sums_integers ? Kind::kCodes : Kind::kValues;
    }
  }

  absl::StatusOr<PackedModel> Load(kernels::Stream& stream) {
    for (const linear::LinearSite& site : sites_) {
      if (weights_[site.index].kind != Kind::kDense) {
        TY_RETURN_IF_ERROR(Annotate(linear::CheckSite({options_, {}}, site), file_.path()));
      }
    }
    kernels::Arena counting = kernels::Arena::CountOnly();
    Allocate(counting);
    TY_ASSIGN_OR_RETURN(kernels::Arena arena, kernels::Arena::Reserve(counting.used_bytes()));
    PackedModel model;
    model.config = config_;
    model.options = options_;
    model.arena = std::make_unique<kernels::Arena>(std::move(arena));
    model.weights = Allocate(*model.arena);
    for (size_t i = 0; i < parameters_.size(); ++i) {
      PackedQuestWeight* const packed = PackedOf(parameters_[i]);
      for (const HuggingFacePart& part : parameters_[i].parts) {
        if (packed != nullptr) {
          TY_RETURN_IF_ERROR(ReadCodes(part, parameters_[i].shape[1], *packed, model.weights.all[i], stream));
        } else {
          TY_RETURN_IF_ERROR(
              ImportTensor(file_, part.name, model.weights.all[i].Slice(part.row_begin, part.rows), stream));
          left_.erase(part.name);
        }
      }
    }
    if (!left_.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat(file_.path(), ": ", *left_.begin(), " belongs to no part of this network"));
    }
    model.scheme = linear::MakePackedQuestScheme(options_, weights_);
    return model;
  }

 private:
  // Null for a parameter that is float in the file.
  PackedQuestWeight* PackedOf(const Parameter& parameter) {
    const auto site = site_of_.find(parameter.name);
    if (site == site_of_.end() || weights_[site->second].kind == Kind::kDense) return nullptr;
    return &weights_[site->second];
  }

  NetworkTensors Allocate(kernels::Arena& arena) {
    std::vector<TensorView> all;
    for (const Parameter& parameter : parameters_) {
      PackedQuestWeight* const packed = PackedOf(parameter);
      if (packed != nullptr && HasActivationStep(options_)) {
        packed->activation_step = arena.Allocate("weights", DType::kF32, {1});
      }
      if (packed != nullptr && packed->kind == Kind::kCodes) {
        const int64_t rows = parameter.shape[0];
        const int64_t cols = parameter.shape[1];
        packed->codes.packed = options_.weight_bits == 4;
        packed->codes.codes =
            arena.Allocate("weights", DType::kU8, {rows, packed->codes.packed ? PackedBytes(cols, 4) : cols});
        packed->steps = arena.Allocate("weights", DType::kF32, {rows});
        packed->code_sums = arena.Allocate("weights", DType::kI32, {rows});
        all.emplace_back(nullptr, dtype_, std::initializer_list<int64_t>{rows, cols});
      } else if (parameter.is_matrix()) {
        all.push_back(arena.Allocate("weights", dtype_, {parameter.shape[0], parameter.shape[1]}));
      } else {
        all.push_back(arena.Allocate("weights", dtype_, {parameter.shape[0]}));
      }
    }
    return BindTensors(config_, std::move(all));
  }

  // A tensor of the file that must have this dtype and shape.
  absl::StatusOr<TensorView> Expect(const std::string& name, DType dtype, const std::vector<int64_t>& shape) {
    TY_ASSIGN_OR_RETURN(const SafetensorsEntry* const entry, file_.Find(name));
    if (entry->dtype != dtype || entry->shape != shape) {
      return absl::InvalidArgumentError(absl::StrCat(file_.path(), ": ", name, ": ", entry->format, " (",
                                                     absl::StrJoin(entry->shape, ", "), "), but config.json makes it ",
                                                     kernels::Name(dtype), " (", absl::StrJoin(shape, ", "), ")"));
    }
    left_.erase(name);
    return file_.Tensor(name);
  }

  absl::StatusOr<TensorView> ExpectSteps(const std::string& name, int64_t rows) {
    TY_ASSIGN_OR_RETURN(const TensorView steps, Expect(name, DType::kF32, {rows}));
    for (int64_t row = 0; row < rows; ++row) {
      const float step = steps.as<float>()[row];
      if (std::isfinite(step) && step > 0) continue;
      return absl::DataLossError(
          absl::StrCat(file_.path(), ": ", name, ": row ", row, ": ", step, " is not the step of a grid (damaged)"));
    }
    return steps;
  }

  // Parts of one matrix are multiplied with the same activations.
  absl::Status ReadActivationStep(const HuggingFacePart& part, const TensorView& activation_step) {
    const std::string name = ActivationStepName(part.name);
    TY_ASSIGN_OR_RETURN(const TensorView stored, ExpectSteps(name, 1));
    float& step = *activation_step.as<float>();
    if (part.row_begin == 0) step = *stored.as<float>();
    if (step == *stored.as<float>()) return absl::OkStatus();
    return absl::DataLossError(absl::StrCat(file_.path(), ": ", name, ": ", *stored.as<float>(), ", but ", step,
                                            " for the matrix beside it (damaged)"));
  }

  absl::Status ReadCodes(const HuggingFacePart& part, int64_t cols, const PackedQuestWeight& packed,
                         const TensorView& weight, kernels::Stream& stream) {
    const int bits = PackedCodeBits(options_);
    TY_ASSIGN_OR_RETURN(const TensorView stored,
                        Expect(CodesName(part.name), DType::kU8, {part.rows, PackedBytes(cols, bits)}));
    TY_ASSIGN_OR_RETURN(const TensorView steps, ExpectSteps(StepsName(part.name), part.rows));
    if (packed.activation_step) TY_RETURN_IF_ERROR(ReadActivationStep(part, packed.activation_step));
    std::vector<uint8_t> bytes(static_cast<size_t>(part.rows * cols));
    const TensorView codes(bytes.data(), DType::kU8, {part.rows, cols});
    UnpackRows({.packed = stored, .codes = codes, .bits = bits, .is_signed = options_.weight_grid != Grid::kFp4},
               stream);
    TensorView sums, kept;
    if (HasCodeSums(options_)) {
      TY_ASSIGN_OR_RETURN(sums, Expect(CodeSumsName(part.name), DType::kI32, {part.rows}));
      TY_RETURN_IF_ERROR(CheckSums(part, codes, sums, stream));
    }
    if (HasKept(options_)) {
      TY_ASSIGN_OR_RETURN(kept, Expect(KeptName(part.name), DType::kU8, {part.rows, PackedBytes(cols, 1)}));
    }

    if (packed.kind == Kind::kValues) {
      const kernels::QuestGrid grid =
          options_.weight_grid == Grid::kFp4 ? kernels::QuestGrid::kFp4 : kernels::QuestGrid::kInt;
      QuestDequantize({.codes = codes,
                       .steps = steps,
                       .kept = kept,
                       .values = weight.Slice(part.row_begin, part.rows),
                       .grid = grid},
                      stream);
      return absl::OkStatus();
    }
    const auto copy = [&part](const TensorView& from, const TensorView& whole) {
      const TensorView to = whole.Slice(part.row_begin, part.rows);
      TY_CHECK_EQ(to.bytes(), from.bytes());
      std::memcpy(to.data(), from.data(), static_cast<size_t>(from.bytes()));
    };
    copy(packed.codes.packed ? stored : codes, packed.codes.codes);
    copy(steps, packed.steps);
    copy(sums, packed.code_sums);
    return absl::OkStatus();
  }

  absl::Status CheckSums(const HuggingFacePart& part, const TensorView& codes, const TensorView& sums,
                         kernels::Stream& stream) const {
    std::vector<int32_t> expected(static_cast<size_t>(part.rows));
    CodeRowSums({.a = {codes}, .depth = codes.dim(1), .sums = TensorView(expected.data(), DType::kI32, {part.rows})},
                stream);
    for (int64_t row = 0; row < part.rows; ++row) {
      const int32_t stored = sums.as<int32_t>()[row];
      if (stored == expected[static_cast<size_t>(row)]) continue;
      return absl::DataLossError(absl::StrCat(file_.path(), ": ", CodesName(part.name), ": row ", row, " adds up to ",
                                              expected[static_cast<size_t>(row)], ", ", CodeSumsName(part.name),
                                              " says ", stored, " (damaged)"));
    }
    return absl::OkStatus();
  }

  const spec::LinearQuest options_;
  const DType dtype_;
  const SafetensorsReader& file_;
  const std::vector<Parameter> parameters_;
  const ModelConfig config_;
  std::set<std::string> left_;  // tensors of the file that nobody has read
  std::vector<linear::LinearSite> sites_;
  std::map<std::string, uint32_t> site_of_;  // by parameter
  std::vector<PackedQuestWeight> weights_;   // by site
};

}  // namespace

absl::StatusOr<PackedModel> LoadPackedModel(const std::string& directory, DType dtype, kernels::Stream& stream) {
  const std::string config_path = JoinPath(directory, "config.json");
  TY_ASSIGN_OR_RETURN(const std::string text, ReadFile(config_path));
  TY_ASSIGN_OR_RETURN(const spec::LinearQuest options, ParseQuantization(text, config_path));
  TY_ASSIGN_OR_RETURN(const ModelConfig config, ReadConfig(directory));
  TY_ASSIGN_OR_RETURN(const SafetensorsReader file, SafetensorsReader::Open(JoinPath(directory, "model.safetensors")));
  return Loader(config, options, dtype, file).Load(stream);
}

}  // namespace trainyard::model
