#include "worker/prune/task/database.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/digest.h"
#include "base/file.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "kernels/quant/cast.h"
#include "nlohmann/json.hpp"
#include "worker/model/hugging_face.h"
#include "worker/model/safetensors.h"
#include "worker/prune/task/hessians.h"

namespace trainyard::prune {
namespace {

using kernels::DType;
using kernels::TensorView;
using Json = nlohmann::ordered_json;

constexpr char kModuleIndex[] = "levels.json";
constexpr char kIndexBefore[] = "database-", kIndexAfter[] = ".json";
constexpr char kLevelAfter[] = ".safetensors";

DType DTypeOf(spec::PruneFloat format) {
  switch (format) {
    case spec::PruneFloat::kBf16:
      return DType::kBF16;
    case spec::PruneFloat::kFp16:
      return DType::kF16;
    case spec::PruneFloat::kFp32:
      return DType::kF32;
  }
  return DType::kF32;
}

absl::StatusOr<spec::PruneModule> ModuleOf(const std::string& name, const std::string& path) {
  for (spec::PruneModule module : {spec::PruneModule::kAttention, spec::PruneModule::kMlp}) {
    if (name == Name(module)) return module;
  }
  return absl::DataLossError(absl::StrCat(path, ": module '", name, "' is neither attention nor mlp"));
}

absl::Status CheckLevel(const StoredModule& module, int32_t level) {
  if (level >= 0 && level < static_cast<int32_t>(module.levels.size())) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("level ", level, " not in [0, ", module.levels.size(), ")"));
}

// `text`: of levels.json of `folder`.
absl::StatusOr<StoredModule> ParseModule(const std::string& folder, const std::string& text) {
  const std::string path = JoinPath(folder, kModuleIndex);
  StoredModule module;
  module.folder = folder;
  try {
    const Json root = Json::parse(text);
    TY_ASSIGN_OR_RETURN(module.module, ModuleOf(root.at("module").get<std::string>(), path));
    module.block = root.at("block").get<int64_t>();
    module.rows = root.at("rows").get<int64_t>();
    module.columns = root.at("columns").get<int64_t>();
    module.group = root.at("group").get<int64_t>();
    for (const Json& level : root.at("levels")) {
      module.levels.push_back(
          {level.at("removed").get<int32_t>(), level.at("error").get<double>(), level.at("file").get<std::string>()});
    }
  } catch (const Json::exception& error) {
    return absl::DataLossError(absl::StrCat(path, ": ", error.what()));
  }
  if (module.levels.empty() || module.columns < 1 || module.rows < 1 || module.group < 1 ||
      module.columns % module.group != 0 || module.block < 0) {
    return absl::DataLossError(absl::StrCat(path, ": sizes or levels are none"));
  }
  for (const StoredLevel& level : module.levels) {
    const bool has_file = level.removed > 0 && level.removed < module.columns;
    if (level.removed < 0 || level.removed > module.columns || level.removed % module.group != 0 ||
        has_file == level.file.empty()) {
      return absl::DataLossError(absl::StrCat(path, ": a level that removes ", level.removed, " of ", module.columns,
                                              " columns with the file '", level.file, "'"));
    }
  }
  return module;
}

}  // namespace

// A copy of the cache stays there as long as it is mapped.
struct Database::OpenFiles {
  struct Level {
    cache::CachedFile file;
    model::SafetensorsReader reader;
  };
  cache::FileCache* cache = nullptr;
  Mutex mutex;
  std::map<std::string, Level> levels ABSL_GUARDED_BY(mutex);  // by the original's path
};

absl::Status ModuleWriter::Add(const kernels::ObsLevel& level, kernels::Stream& stream) {
  StoredLevel stored;
  const auto kept = static_cast<int64_t>(level.kept.size());
  stored.removed = static_cast<int32_t>(module_.columns - kept);
  stored.error = level.error;
  if (kept > 0 && kept < module_.columns) {
    TY_RETURN_IF_ERROR(MakeDirs(module_.folder));
    const DType dtype = DTypeOf(dtype_);
    std::vector<char> narrow(level.weights.size() * kernels::SizeOf(dtype));
    const auto size = static_cast<int64_t>(level.weights.size());
    if (dtype == DType::kF32) {
      std::memcpy(narrow.data(), level.weights.data(), narrow.size());
    } else {
      Narrow(
          {.x = {const_cast<float*>(level.weights.data()), DType::kF32, {size}}, .y = {narrow.data(), dtype, {size}}},
          stream);
    }
    const std::string path = JoinPath(module_.folder, "level.safetensors");
    TY_ASSIGN_OR_RETURN(
        const model::SafetensorsFileInfo info,
        model::WriteSafetensors(path, {{"weight", dtype, {module_.rows, kept}}, {"columns", DType::kI32, {kept}}},
                                {narrow.data(), level.kept.data()}));
    stored.file = absl::StrCat(info.digest, kLevelAfter);
    if (std::rename(path.c_str(), JoinPath(module_.folder, stored.file).c_str()) != 0) {
      return ErrnoStatus(errno, "rename", path);
    }
    bytes_ += static_cast<int64_t>(info.bytes);
  }
  module_.levels.push_back(std::move(stored));
  return absl::OkStatus();
}

absl::Status ModuleWriter::Finish() {
  Json levels = Json::array();
  for (const StoredLevel& level : module_.levels) {
    levels.push_back({{"removed", level.removed}, {"error", level.error}, {"file", level.file}});
  }
  const Json index = {{"block", module_.block},     {"module", Name(module_.module)}, {"rows", module_.rows},
                      {"columns", module_.columns}, {"group", module_.group},         {"levels", levels}};
  const std::string text = index.dump(1) + "\n";
  bytes_ += static_cast<int64_t>(text.size());
  TY_RETURN_IF_ERROR(MakeDirs(module_.folder));
  return WriteFileAtomic(JoinPath(module_.folder, kModuleIndex), text);
}

absl::StatusOr<std::string> Database::MakeIndex(const std::vector<std::string>& folders) {
  Json modules = Json::array();
  for (const std::string& folder : folders) {
    TY_ASSIGN_OR_RETURN(const std::string text, ReadFile(JoinPath(folder, kModuleIndex)));
    TY_ASSIGN_OR_RETURN(const StoredModule module, ParseModule(folder, text));
    modules.push_back(
        {{"block", module.block}, {"module", Name(module.module)}, {"folder", folder}, {"digest", DigestOf(text)}});
  }
  return Json{{"modules", modules}}.dump(1) + "\n";
}

std::string Database::FileName(const std::string& index) {
  return absl::StrCat(kIndexBefore, DigestOf(index), kIndexAfter);
}

absl::StatusOr<Database> Database::Open(const std::string& index_path, cache::FileCache* cache) {
  const auto read = [cache](const std::string& digest, const std::string& path) -> absl::StatusOr<std::string> {
    TY_ASSIGN_OR_RETURN(const cache::CachedFile file, cache::GetFile(cache, digest, path));
    return ReadFile(file.path());
  };
  TY_ASSIGN_OR_RETURN(const std::string text,
                      read(cache::DigestInName(index_path, kIndexBefore, kIndexAfter), index_path));
  std::vector<std::pair<std::string, std::string>> folders;  // and digests
  try {
    const Json root = Json::parse(text);
    for (const Json& module : root.at("modules")) {
      folders.emplace_back(module.at("folder").get<std::string>(), module.at("digest").get<std::string>());
    }
  } catch (const Json::exception& error) {
    return absl::DataLossError(absl::StrCat(index_path, ": ", error.what()));
  }
  Database database;
  database.files_ = std::make_shared<OpenFiles>();
  database.files_->cache = cache;
  const size_t blocks = folders.size() / 2;
  database.attention_.resize(blocks);
  database.mlp_.resize(blocks);
  for (const auto& [folder, digest] : folders) {
    const absl::StatusOr<std::string> levels = read(digest, JoinPath(folder, kModuleIndex));
    if (absl::IsDataLoss(levels.status()) || (levels.ok() && DigestOf(*levels) != digest)) {
      return absl::DataLossError(absl::StrCat(folder, ": levels.json is not the one that ", index_path, " names"));
    }
    TY_RETURN_IF_ERROR(levels.status());
    TY_ASSIGN_OR_RETURN(StoredModule module, ParseModule(folder, *levels));
    if (module.block >= static_cast<int64_t>(blocks)) {
      return absl::DataLossError(absl::StrCat(index_path, ": block ", module.block, " of ", blocks));
    }
    auto& group = module.module == spec::PruneModule::kAttention ? database.attention_ : database.mlp_;
    group[static_cast<size_t>(module.block)] = std::move(module);
  }
  for (size_t block = 0; block < blocks; ++block) {
    if (database.attention_[block].levels.empty() || database.mlp_[block].levels.empty()) {
      return absl::DataLossError(absl::StrCat(index_path, ": block ", block, " lacks its attention or its MLP"));
    }
  }
  if (blocks == 0) return absl::DataLossError(absl::StrCat(index_path, ": no modules"));
  return database;
}

LevelTable<double> Database::Errors() const {
  LevelTable<double> errors;
  const auto errors_of = [](const StoredModule& module) {
    std::vector<double> values;
    for (const StoredLevel& level : module.levels) values.push_back(level.error);
    return values;
  };
  for (const StoredModule& module : attention_) errors.attention.push_back(errors_of(module));
  for (const StoredModule& module : mlp_) errors.mlp.push_back(errors_of(module));
  return errors;
}

absl::Status Database::CheckModel(const model::ModelConfig& config) const {
  const auto check = [&](const StoredModule& module, int64_t columns) -> absl::Status {
    if (module.rows == config.hidden_size && module.columns == columns) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat(module.folder, ": a matrix of ", module.rows, " x ", module.columns,
                                                   ", the model's has ", config.hidden_size, " x ", columns));
  };
  if (blocks() != config.layers) {
    return absl::InvalidArgumentError(
        absl::StrCat("the database has ", blocks(), " blocks, the model ", config.layers));
  }
  for (int64_t block = 0; block < blocks(); ++block) {
    const StoredModule& attention = module(block, spec::PruneModule::kAttention);
    TY_RETURN_IF_ERROR(check(attention, config.q_heads * config.head_dim));
    TY_RETURN_IF_ERROR(check(module(block, spec::PruneModule::kMlp), config.intermediate_size));
    if (attention.group != config.head_dim) {
      return absl::InvalidArgumentError(absl::StrCat(attention.folder, ": columns go in groups of ", attention.group,
                                                     ", the model's head_dim is ", config.head_dim));
    }
  }
  return absl::OkStatus();
}

absl::Status Database::CheckGenome(const Genome& genome) const {
  const auto check = [&](const char* name, const std::vector<int32_t>& levels,
                         const std::vector<StoredModule>& modules) -> absl::Status {
    if (levels.size() != modules.size()) {
      return absl::InvalidArgumentError(
          absl::StrCat(name, ": ", levels.size(), " levels, the database has ", modules.size(), " blocks"));
    }
    for (size_t i = 0; i < levels.size(); ++i) {
      if (levels[i] >= 0 && levels[i] < static_cast<int32_t>(modules[i].levels.size())) continue;
      return absl::InvalidArgumentError(
          absl::StrCat(name, "[", i, "]: ", levels[i], " not in [0, ", modules[i].levels.size(), ")"));
    }
    return absl::OkStatus();
  };
  TY_RETURN_IF_ERROR(check("attention_levels", genome.attention, attention_));
  return check("mlp_levels", genome.mlp, mlp_);
}

absl::StatusOr<const model::SafetensorsReader*> Database::OpenLevel(const StoredModule& module, int32_t level) const {
  const std::string& name = module.levels[static_cast<size_t>(level)].file;
  const std::string path = JoinPath(module.folder, name);
  MutexLock lock(&files_->mutex);
  auto found = files_->levels.find(path);
  if (found == files_->levels.end()) {
    TY_ASSIGN_OR_RETURN(cache::CachedFile file,
                        cache::GetFile(files_->cache, cache::DigestInName(name, "", kLevelAfter), path));
    TY_ASSIGN_OR_RETURN(model::SafetensorsReader reader, model::SafetensorsReader::Open(file.path()));
    found = files_->levels.emplace(path, OpenFiles::Level{std::move(file), std::move(reader)}).first;
  }
  return &found->second.reader;  // a map's elements stay where they are
}

absl::StatusOr<std::vector<int32_t>> Database::Kept(const StoredModule& module, int32_t level) const {
  TY_RETURN_IF_ERROR(CheckLevel(module, level));
  const StoredLevel& stored = module.levels[static_cast<size_t>(level)];
  std::vector<int32_t> kept(static_cast<size_t>(module.columns - stored.removed));
  if (stored.removed == 0) std::iota(kept.begin(), kept.end(), 0);
  if (stored.file.empty()) return kept;
  TY_ASSIGN_OR_RETURN(const model::SafetensorsReader* const file, OpenLevel(module, level));
  const std::string& path = file->path();
  TY_ASSIGN_OR_RETURN(const model::SafetensorsEntry* const entry, file->Find("columns"));
  if (entry->dtype != DType::kI32 || entry->size() != static_cast<int64_t>(kept.size())) {
    return absl::DataLossError(absl::StrCat(path, ": columns is not I32 (", kept.size(), ")"));
  }
  std::memcpy(kept.data(), file->Data(*entry), entry->bytes());
  int32_t before = -1;
  for (int32_t column : kept) {
    if (column <= before || column >= module.columns) {
      return absl::DataLossError(absl::StrCat(path, ": columns are not ascending below ", module.columns));
    }
    before = column;
  }
  return kept;
}

absl::StatusOr<std::vector<BlockRemoval>> Database::Removals(const Genome& genome) const {
  TY_RETURN_IF_ERROR(CheckGenome(genome));
  const auto removed_groups = [&](const StoredModule& module, int32_t level) -> absl::StatusOr<std::vector<int32_t>> {
    TY_ASSIGN_OR_RETURN(const std::vector<int32_t> kept, Kept(module, level));
    std::vector<int32_t> removed;
    const auto group = static_cast<int32_t>(module.group);
    for (int32_t i = 0; i < static_cast<int32_t>(module.columns) / group; ++i) {
      const auto begin = std::lower_bound(kept.begin(), kept.end(), i * group);
      const auto end = std::lower_bound(kept.begin(), kept.end(), (i + 1) * group);
      if (begin == end) {
        removed.push_back(i);
      } else if (end - begin != group) {
        return absl::DataLossError(absl::StrCat(module.folder, ": level ", level, " keeps a part of group ", i));
      }
    }
    return removed;
  };
  std::vector<BlockRemoval> removals(attention_.size());
  for (size_t block = 0; block < attention_.size(); ++block) {
    TY_ASSIGN_OR_RETURN(removals[block].heads, removed_groups(attention_[block], genome.attention[block]));
    TY_ASSIGN_OR_RETURN(removals[block].channels, removed_groups(mlp_[block], genome.mlp[block]));
  }
  return removals;
}

absl::Status Database::ReadWeights(const StoredModule& module, int32_t level, const TensorView& compact,
                                   kernels::Stream& stream) const {
  TY_RETURN_IF_ERROR(CheckLevel(module, level));
  TY_CHECK(!module.levels[static_cast<size_t>(level)].file.empty());
  TY_ASSIGN_OR_RETURN(const model::SafetensorsReader* const file, OpenLevel(module, level));
  return model::ImportTensor(*file, "weight", compact, stream);
}

absl::StatusOr<std::vector<float>> ReadModuleWeights(const std::string& model_directory,
                                                     const model::ModelConfig& config, int64_t block,
                                                     spec::PruneModule module, kernels::Stream& stream) {
  const std::string site = module == spec::PruneModule::kAttention ? "output" : "down";
  const std::string wanted = absl::StrCat("layers.", block, ".", site, ".weight");
  for (const model::Parameter& parameter : ListParameters(config)) {
    if (parameter.name != wanted) continue;
    const std::string& name = parameter.parts.front().name;
    std::string file = "model.safetensors";
    const std::string index_path = JoinPath(model_directory, "model.safetensors.index.json");
    if (FileExists(index_path)) {
      TY_ASSIGN_OR_RETURN(const std::string text, ReadFile(index_path));
      const Json index = Json::parse(text, nullptr, /*allow_exceptions=*/false);
      const Json::json_pointer place = Json::json_pointer("/weight_map") / name;
      if (!index.is_object() || !index.contains(place) || !index.at(place).is_string()) {
        return absl::InvalidArgumentError(absl::StrCat(index_path, ": weight_map does not name ", name));
      }
      file = index.at(place).get<std::string>();
    }
    TY_ASSIGN_OR_RETURN(const model::SafetensorsReader reader,
                        model::SafetensorsReader::Open(JoinPath(model_directory, file)));
    std::vector<float> weights(static_cast<size_t>(parameter.size()));
    TY_RETURN_IF_ERROR(model::ImportTensor(
        reader, name, {weights.data(), DType::kF32, {parameter.shape[0], parameter.shape[1]}}, stream));
    return weights;
  }
  return absl::InvalidArgumentError(absl::StrCat("the model has no ", wanted));
}

ParameterTable ParametersOf(const model::ModelConfig& config, const std::vector<int32_t>& removed_attention,
                            const std::vector<int32_t>& removed_mlp, bool prune_kv_heads) {
  // A module's parameters depend on how much of it is left alone, so one block stands for all.
  const auto removed = [](int32_t count) {
    std::vector<int32_t> indices(static_cast<size_t>(count));
    std::iota(indices.begin(), indices.end(), 0);
    return indices;
  };
  const auto count = [&](int32_t heads, int32_t channels) {
    std::vector<BlockRemoval> removals(static_cast<size_t>(config.layers));
    removals.front() = {removed(heads), removed(channels)};
    return ParameterCount(ShrunkConfig(config, removals, prune_kv_heads));
  };
  const auto all_heads = static_cast<int32_t>(config.q_heads);
  const auto all_channels = static_cast<int32_t>(config.intermediate_size);
  std::vector<int64_t> attention, mlp;
  for (int32_t columns : removed_attention) {
    attention.push_back(count(columns / static_cast<int32_t>(config.head_dim), 0) - count(all_heads, 0));
  }
  for (int32_t columns : removed_mlp) mlp.push_back(count(0, columns) - count(0, all_channels));
  ParameterTable table;
  const auto blocks = static_cast<size_t>(config.layers);
  table.modules.attention.assign(blocks, attention);
  table.modules.mlp.assign(blocks, mlp);
  const int64_t dense = model::ParameterCount(config);
  table.fixed =
      dense - static_cast<int64_t>(blocks) * ((dense - count(all_heads, 0)) + (dense - count(0, all_channels)));
  return table;
}

}  // namespace trainyard::prune
