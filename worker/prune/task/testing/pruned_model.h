// A small trained model with its moments and its database, for tests of what comes after them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/file.h"
#include "base/testing/temp_dir.h"
#include "kernels/prune/obs.h"
#include "worker/prune/task/candidate.h"
#include "worker/prune/task/database.h"
#include "worker/prune/task/hessians.h"
#include "worker/prune/task/testing/small_model.h"

namespace trainyard::prune::testing {

inline constexpr int64_t kSequence = 32;

inline bool Never() {
  return false;
}

inline std::vector<Document> FirstDocuments(const SmallModel& model, Half half, int64_t tokens) {
  absl::StatusOr<DocumentPool> pool = DocumentPool::Open({.directory = model.data_path(),
                                                          .half = half,
                                                          .sequence_length = kSequence,
                                                          .most_tokens = tokens,
                                                          .vocab_size = model.config().vocab_size});
  TY_CHECK_OK(pool);
  std::vector<Document> documents;
  for (int64_t i = 0; i < pool->size(); ++i) documents.push_back(pool->document(i));
  return documents;
}

inline absl::Status CalibrateInto(const std::string& directory, const LoadedModel& dense,
                                  const std::vector<Document>& documents, comm::Communicator* communicator = nullptr,
                                  int64_t most_bytes = int64_t{1} << 30) {
  kernels::Stream stream(1);
  CalibrationArgs args;
  args.config = &dense.config;
  args.weights = &dense.weights;
  args.documents = &documents;
  args.sequence_length = kSequence;
  args.directory = directory;
  args.most_bytes = most_bytes;
  args.communicator = communicator;
  args.agree_to_stop = [] { return absl::StatusOr<bool>(false); };
  return Calibrate(args, stream).status();
}

// A model with its database of five levels.
struct Pruned {
  explicit Pruned(int64_t kv_heads) : model(kv_heads, /*layers=*/3, /*steps=*/120) {
    absl::StatusOr<LoadedModel> loaded = LoadDenseModel(model.path(), kernels::DType::kF32, stream);
    TY_CHECK_OK(loaded);
    dense = *std::move(loaded);
    TY_CHECK_OK(CalibrateInto(dir.Join("hessians"), dense, FirstDocuments(model, Half::kFirst, 4000)));
    std::vector<std::string> folders;
    for (int64_t block = 0; block < 3; ++block) {
      for (spec::PruneModule module : {spec::PruneModule::kAttention, spec::PruneModule::kMlp})
        folders.push_back(Prune(block, module));
    }
    absl::StatusOr<std::string> index = Database::MakeIndex(folders);
    TY_CHECK_OK(index);
    TY_CHECK_OK(WriteFileAtomic(dir.Join("index.json"), *index));
    absl::StatusOr<Database> opened = Database::Open(dir.Join("index.json"));
    TY_CHECK_OK(opened);
    database = *std::move(opened);
  }

  std::string Prune(int64_t block, spec::PruneModule which) {
    const bool is_attention = which == spec::PruneModule::kAttention;
    StoredModule module;
    module.folder = dir.Join(std::string(Name(which)) + std::to_string(block));
    module.block = block;
    module.module = which;
    module.rows = 64;
    module.columns = is_attention ? 64 : 128;
    module.group = is_attention ? 16 : 1;
    const std::vector<int32_t> removed =
        is_attention ? std::vector<int32_t>{0, 16, 32, 48, 64} : std::vector<int32_t>{0, 32, 64, 96, 128};
    absl::StatusOr<std::vector<float>> weights = ReadModuleWeights(model.path(), model.config(), block, which, stream);
    TY_CHECK_OK(weights);
    absl::StatusOr<std::vector<float>> hessian =
        ReadHessian(HessianPath(dir.Join("hessians"), block, which), module.columns);
    TY_CHECK_OK(hessian);
    ModuleWriter writer(module, spec::PruneFloat::kFp32);
    TY_CHECK_OK(ObsLevels(
        {.w = {weights->data(), kernels::DType::kF32, {64, module.columns}},
         .hessian = {hessian->data(), kernels::DType::kF32, {module.columns, module.columns}},
         .group = module.group,
         .removed = removed},
        [&](const kernels::ObsLevel& level) { return writer.Add(level, stream); }, stream));
    TY_CHECK_OK(writer.Finish());
    return module.folder;
  }

  kernels::Stream stream{1};
  SmallModel model;
  TempDir dir;
  LoadedModel dense;
  Database database;
};

}  // namespace trainyard::prune::testing
