// What pruning the modules of a dense model apart has given: for each module (attention or MLP of a block) and level
// the columns that are left and their new weights. Written once, read by every candidate of a search.
//
// A module's folder has levels.json,
//
//   {"block", "module": "attention" | "mlp", "rows", "columns", "group", "levels": [{"removed", "error", "file"}, ...]}
//
// and a file for each level but those that remove nothing or everything, <XXH3-128 of it>.safetensors with "weight"
// (rows, kept) in the storage dtype and "columns" I32 (kept), ascending. Equal content has equal names. A database is
// an index of such folders: {"modules": [{"block", "module", "folder", "digest" (of its levels.json)}]}, in a file that
// FileName names by its digest. So whoever has an index knows the digest of every file, and a worker may read copies
// that it has kept (worker/cache).
//
// Readers map files, each once: what a worker's candidates have in common is in memory once.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/core/stream.h"
#include "kernels/core/tensor.h"
#include "kernels/prune/obs.h"
#include "proto/spec/prune_search_options.h"
#include "worker/cache/file_cache.h"
#include "worker/model/config.h"
#include "worker/prune/search/genome.h"
#include "worker/prune/shrink.h"

namespace trainyard::model {
class SafetensorsReader;
}

namespace trainyard::prune {

struct StoredLevel {
  int32_t removed = 0;  // columns
  double error = 0;
  std::string file;  // empty: as the dense model has it, or nothing
};

struct StoredModule {
  std::string folder;
  int64_t block = 0;
  spec::PruneModule module = spec::PruneModule::kAttention;
  int64_t rows = 0, columns = 0, group = 1;
  std::vector<StoredLevel> levels;
};

// Writes a module's folder, level after level.
class ModuleWriter {
 public:
  ModuleWriter(StoredModule module, spec::PruneFloat dtype) : module_(std::move(module)), dtype_(dtype) {}
  absl::Status Add(const kernels::ObsLevel& level, kernels::Stream& stream);
  // The index, when all levels are there.
  absl::Status Finish();
  int64_t bytes() const { return bytes_; }
  const StoredModule& module() const { return module_; }

 private:
  StoredModule module_;
  const spec::PruneFloat dtype_;
  int64_t bytes_ = 0;
};

class Database {
 public:
  // The index of modules' folders, one each for attention and MLP of every block, in any order. Text is a function of
  // the folders and their content. DataLoss for a folder that is not complete or contradicts itself.
  static absl::StatusOr<std::string> MakeIndex(const std::vector<std::string>& folders);
  // The name of an index with this text.
  static std::string FileName(const std::string& index);
  // Files are read through `cache`, if there is one; it outlives the database and its copies. DataLoss as above, and
  // for files that are not those the index was made of.
  static absl::StatusOr<Database> Open(const std::string& index_path, cache::FileCache* cache = nullptr);

  int64_t blocks() const { return static_cast<int64_t>(attention_.size()); }
  const StoredModule& module(int64_t block, spec::PruneModule module) const {
    return (module == spec::PruneModule::kAttention ? attention_ : mlp_)[static_cast<size_t>(block)];
  }
  LevelTable<double> Errors() const;

  // InvalidArgument if the model has other sizes.
  absl::Status CheckModel(const model::ModelConfig& config) const;
  // InvalidArgument for a genome of another number of blocks or with a level that is not there.
  absl::Status CheckGenome(const Genome& genome) const;

  // What goes from each block. Heads for attention: columns go in whole heads.
  absl::StatusOr<std::vector<BlockRemoval>> Removals(const Genome& genome) const;

  // The weights of a level that has a file into `compact` (rows, kept), f32 or bf16.
  absl::Status ReadWeights(const StoredModule& module, int32_t level, const kernels::TensorView& compact,
                           kernels::Stream& stream) const;
  // Columns that a level keeps, ascending.
  absl::StatusOr<std::vector<int32_t>> Kept(const StoredModule& module, int32_t level) const;

 private:
  struct OpenFiles;
  absl::StatusOr<const model::SafetensorsReader*> OpenLevel(const StoredModule& module, int32_t level) const;

  std::vector<StoredModule> attention_, mlp_;
  // Levels that were read; copies of a database share them.
  std::shared_ptr<OpenFiles> files_;
};

// The dense weights (rows, columns) f32 of a module's pruned matrix from a model folder. Reads no other tensor.
absl::StatusOr<std::vector<float>> ReadModuleWeights(const std::string& model_directory,
                                                     const model::ModelConfig& config, int64_t block,
                                                     spec::PruneModule module, kernels::Stream& stream);

// Parameters by level of a model's modules. `removed_*`: columns removed at each level.
ParameterTable ParametersOf(const model::ModelConfig& config, const std::vector<int32_t>& removed_attention,
                            const std::vector<int32_t>& removed_mlp, bool prune_kv_heads);

}  // namespace trainyard::prune
