#include "worker/ckpt/snapshot.h"

#include <cstring>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/ckpt/tensor_division.h"

namespace trainyard::ckpt {

// The replicated tensors that fall to this rank, its parts of others, then its own.
absl::Status Snapshot::Plan(const CheckpointWriter& writer) {
  TY_RETURN_IF_ERROR(writer.status());
  specs_.clear();
  sources_.clear();
  offsets_.clear();
  sizes_.clear();
  texts_.clear();

  int64_t end = 0;
  const auto add = [&](const std::string& name, const kernels::TensorView& tensor) {
    model::SafetensorsTensorSpec spec{name, tensor.dtype(), {}};
    for (int axis = 0; axis < tensor.rank(); ++axis) spec.shape.push_back(tensor.dim(axis));
    specs_.push_back(std::move(spec));
    sources_.push_back(tensor.data());
    offsets_.push_back(end);
    sizes_.push_back(tensor.bytes());
    end += (tensor.bytes() + 63) / 64 * 64;
  };
  std::set<std::string> names;
  const auto repeated = [&](const CheckpointWriter::Item& item) { return !names.insert(item.name).second; };
  std::vector<int64_t> bytes;
  for (const CheckpointWriter::Item& item : writer.tensors()) {
    if (repeated(item)) return absl::InvalidArgumentError(absl::StrCat("checkpoint: two tensors named ", item.name));
    bytes.push_back(item.tensor.bytes());
  }
  const std::vector<int> owners = DivideTensors(bytes, ranks_);
  for (size_t i = 0; i < owners.size(); ++i) {
    if (owners[i] == rank_) add(writer.tensors()[i].name, writer.tensors()[i].tensor);
  }
  for (const CheckpointWriter::Item& item : writer.parts()) {
    if (repeated(item)) return absl::InvalidArgumentError(absl::StrCat("checkpoint: two parts named ", item.name));
    add(item.name, item.tensor);
  }
  names.clear();
  for (const CheckpointWriter::Item& item : writer.local_tensors()) {
    if (repeated(item)) {
      return absl::InvalidArgumentError(absl::StrCat("checkpoint: two local tensors named ", item.name));
    }
    add(absl::StrCat("local/", item.name), item.tensor);
  }
  if (rank_ == 0) texts_ = writer.texts();
  for (const auto& [name, value] : writer.local_texts()) texts_[absl::StrCat("local/", name)] = value;
  if (static_cast<int64_t>(buffer_.size()) < end) buffer_.resize(static_cast<size_t>(end));
  return absl::OkStatus();
}

absl::Status Snapshot::Reserve(const CheckpointWriter& writer) {
  return Plan(writer);
}

absl::Status Snapshot::Take(const CheckpointWriter& writer) {
  TY_RETURN_IF_ERROR(Plan(writer));
  for (size_t i = 0; i < sources_.size(); ++i) {
    if (sizes_[i] > 0) std::memcpy(buffer_.data() + offsets_[i], sources_[i], static_cast<size_t>(sizes_[i]));
  }
  return absl::OkStatus();
}

absl::StatusOr<model::SafetensorsFileInfo> Snapshot::Write(const std::string& path) const {
  std::vector<const void*> data;
  for (int64_t offset : offsets_) data.push_back(buffer_.data() + offset);
  return model::WriteSafetensors(path, specs_, data, texts_);
}

}  // namespace trainyard::ckpt
