// What a checkpoint holds, seen from the code that fills it and reads it back: named tensors and named texts.
//
// Replicated tensors and texts are equal on all ranks; each tensor is written once, by one rank, and read by all. Local
// ones belong to the rank (error feedback, say) and are read back by the same rank of an equally large world. Of a
// tensor in parts each rank has a run of elements, and writes it; any rank of any world reads what elements it wants,
// or the whole, and a tensor that was written whole can be read in parts: how state is shared out may change between
// two attempts.
//
// On disk (formats: safetensors and JSON): job_root/attempt-<n>-fence-<f>/checkpoints/step-<8 digits>/ with
// rank-<r>.safetensors and manifest.json. Names in the shard are as given, with "local/" before local ones and
// "part/<first element>/<elements of the whole>/" before parts, which are one-dimensional; texts are in the shard's
// __metadata__ likewise. A checkpoint exists when the coordinator has committed its manifest, not
// before.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "kernels/core/tensor.h"
#include "proto/v1/checkpoint.pb.h"
#include "worker/ckpt/manifest.h"
#include "worker/model/safetensors.h"

namespace trainyard::ckpt {

// Filled by Job::Save. Only remembers where the tensors are; they are copied when Save has returned. Names are unique
// (else InvalidArgument when the snapshot is taken). The names, shapes and dtypes are the same in every snapshot of a
// run.
class CheckpointWriter {
 public:
  void AddTensor(std::string name, const kernels::TensorView& tensor);
  void AddLocalTensor(std::string name, const kernels::TensorView& tensor);
  // Elements begin.. of a tensor of `whole` elements: at least one, and not beyond it. Over the ranks the parts cover
  // the tensor once.
  void AddTensorPart(const std::string& name, const kernels::TensorView& part, int64_t begin, int64_t whole);
  void AddText(std::string name, std::string value);
  void AddLocalText(std::string name, std::string value);

  struct Item {
    std::string name;
    kernels::TensorView tensor;
  };
  const std::vector<Item>& tensors() const { return tensors_; }
  const std::vector<Item>& local_tensors() const { return local_tensors_; }
  // Under the names they are stored by.
  const std::vector<Item>& parts() const { return parts_; }
  const std::map<std::string, std::string>& texts() const { return texts_; }
  const std::map<std::string, std::string>& local_texts() const { return local_texts_; }
  // InvalidArgument if a name was given twice or is empty.
  absl::Status status() const { return status_; }

 private:
  void Add(std::string name, const kernels::TensorView& tensor, std::vector<Item>* items);
  void AddText(std::string name, std::string value, std::map<std::string, std::string>* texts);

  std::vector<Item> tensors_, local_tensors_, parts_;
  std::map<std::string, std::string> texts_, local_texts_;
  absl::Status status_;
};

// An open checkpoint whose every byte has been checked. Read by Job::Restore.
class CheckpointReader {
 public:
  // Checks the manifest, then size and digest of every shard. DataLoss names the file that is cut, altered or
  // inconsistent, NotFound one that is missing, InvalidArgument a manifest that is none. `rank` chooses what the local
  // names mean; -1 for a reader that is no rank (they are then not found).
  static absl::StatusOr<std::unique_ptr<CheckpointReader>> Open(const std::string& job_root,
                                                                const v1::CheckpointManifest& manifest, int rank);

  // The first of `manifests` (newest first) that is sound; those passed over are logged as warnings. NotFound for an
  // empty list, else the newest one's error if none is sound. `damaged`, if given, receives the steps passed over.
  static absl::StatusOr<std::unique_ptr<CheckpointReader>> OpenNewest(
      const std::string& job_root, const std::vector<v1::CheckpointManifest>& manifests, int rank,
      std::vector<int64_t>* damaged = nullptr);

  const v1::CheckpointManifest& manifest() const { return manifest_; }
  int64_t step() const { return manifest_.step(); }
  int world_size() const { return manifest_.world_size(); }

  bool Has(const std::string& name) const { return tensors_.count(name) > 0 || parts_.count(name) > 0; }
  bool HasLocal(const std::string& name) const;
  std::vector<std::string> TensorNames() const;  // replicated ones and those in parts, sorted

  // Copies a tensor into `out`. NotFound if there is none, FailedPrecondition, with both, if shape or dtype differ; of
  // a tensor in parts no shape is known, and only the number of elements must be equal.
  absl::Status ReadTensor(const std::string& name, const kernels::TensorView& out) const;
  absl::Status ReadLocalTensor(const std::string& name, const kernels::TensorView& out) const;
  // Copies elements begin.. of a tensor of `whole` elements into all of `out`. Errors as ReadTensor.
  absl::Status ReadTensorPart(const std::string& name, int64_t begin, int64_t whole,
                              const kernels::TensorView& out) const;
  // A read-only view of the file's memory, valid as long as the reader. FailedPrecondition for a tensor in parts.
  absl::StatusOr<kernels::TensorView> Tensor(const std::string& name) const;
  absl::StatusOr<std::string> Text(const std::string& name) const;  // NotFound
  absl::StatusOr<std::string> LocalText(const std::string& name) const;

 private:
  // A run of elements of a tensor, in a shard under `stored_name`.
  struct StoredPart {
    int64_t begin = 0;
    const model::SafetensorsReader* shard = nullptr;
    std::string stored_name;
  };
  struct TensorInParts {
    int64_t whole = 0;
    std::vector<StoredPart> parts;  // in order
  };

  CheckpointReader() = default;
  absl::Status Index();
  absl::Status IndexPart(const std::string& stored_name, const model::SafetensorsReader& shard);
  absl::Status CheckParts() const;
  absl::Status Copy(const std::string& stored_name, const model::SafetensorsReader* shard,
                    const kernels::TensorView& out) const;
  const model::SafetensorsReader* OwnShard() const;

  v1::CheckpointManifest manifest_;
  int rank_ = -1;
  std::vector<model::SafetensorsReader> shards_;
  std::map<std::string, const model::SafetensorsReader*> tensors_;  // replicated
  std::map<std::string, TensorInParts> parts_;
};

}  // namespace trainyard::ckpt
