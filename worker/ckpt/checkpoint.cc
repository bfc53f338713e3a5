#include "worker/ckpt/checkpoint.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <optional>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/digest.h"
#include "base/file.h"
#include "base/log.h"
#include "base/status_macros.h"

namespace trainyard::ckpt {
namespace {

using kernels::TensorView;
using model::SafetensorsEntry;
using model::SafetensorsReader;

constexpr char kLocal[] = "local/", kPart[] = "part/";

std::string Describe(absl::string_view format, const std::vector<int64_t>& shape) {
  return absl::StrCat(format, " (", absl::StrJoin(shape, ", "), ")");
}

std::string Describe(const TensorView& tensor) {
  std::vector<int64_t> shape;
  for (int axis = 0; axis < tensor.rank(); ++axis) shape.push_back(tensor.dim(axis));
  return Describe(kernels::Name(tensor.dtype()), shape);
}

// The file is as long as the manifest says and has its digest.
absl::Status CheckShard(const std::string& path, const v1::CheckpointShard& shard) {
  std::error_code error;
  const auto bytes = std::filesystem::file_size(path, error);
  if (error) return ErrnoStatus(error.value(), "checkpoint shard", path);
  if (static_cast<int64_t>(bytes) != shard.bytes()) {
    return absl::DataLossError(
        absl::StrCat("checkpoint shard ", path, " has ", bytes, " bytes, the manifest says ", shard.bytes()));
  }
  TY_ASSIGN_OR_RETURN(const std::string digest, DigestOfFile(path));
  if (digest != shard.digest()) {
    return absl::DataLossError(absl::StrCat("checkpoint shard ", path, " is altered: digest ", digest,
                                            ", the manifest says ", shard.digest()));
  }
  return absl::OkStatus();
}

}  // namespace

void CheckpointWriter::AddTensor(std::string name, const TensorView& tensor) {
  Add(std::move(name), tensor, &tensors_);
}
void CheckpointWriter::AddLocalTensor(std::string name, const TensorView& tensor) {
  Add(std::move(name), tensor, &local_tensors_);
}
void CheckpointWriter::AddTensorPart(const std::string& name, const TensorView& part, int64_t begin, int64_t whole) {
  if (name.empty() || begin < 0 || part.size() < 1 || begin + part.size() > whole) {
    status_ = absl::InvalidArgumentError(absl::StrCat("checkpoint: elements ", begin, " to ", begin + part.size(),
                                                      " are no part of \"", name, "\" with ", whole));
  }
  parts_.push_back({absl::StrCat(kPart, begin, "/", whole, "/", name), part.Reshape({part.size()})});
}
void CheckpointWriter::AddText(std::string name, std::string value) {
  AddText(std::move(name), std::move(value), &texts_);
}
void CheckpointWriter::AddLocalText(std::string name, std::string value) {
  AddText(std::move(name), std::move(value), &local_texts_);
}

// Repeated tensor names are found when the shard is planned; a name that could be taken for a local one, here.
void CheckpointWriter::Add(std::string name, const TensorView& tensor, std::vector<Item>* items) {
  if (name.empty() || absl::StartsWith(name, kLocal) || absl::StartsWith(name, kPart)) {
    status_ = absl::InvalidArgumentError(absl::StrCat("checkpoint: a tensor may not be named \"", name, "\""));
  }
  items->push_back({std::move(name), tensor});
}

void CheckpointWriter::AddText(std::string name, std::string value, std::map<std::string, std::string>* texts) {
  if (name.empty() || absl::StartsWith(name, kLocal) || texts->count(name) > 0) {
    status_ = absl::InvalidArgumentError(absl::StrCat("checkpoint: text name \"", name, "\" is bad or given twice"));
  }
  (*texts)[std::move(name)] = std::move(value);
}

absl::StatusOr<std::unique_ptr<CheckpointReader>> CheckpointReader::Open(const std::string& job_root,
                                                                         const v1::CheckpointManifest& manifest,
                                                                         int rank) {
  TY_RETURN_IF_ERROR(CheckManifest(manifest));
  const std::string folder = JoinPath(job_root, manifest.directory());
  std::unique_ptr<CheckpointReader> reader(new CheckpointReader);
  reader->manifest_ = manifest;
  reader->rank_ = rank;
  for (const v1::CheckpointShard& shard : manifest.shards()) {
    const std::string path = JoinPath(folder, shard.file());
    TY_RETURN_IF_ERROR(CheckShard(path, shard));
    TY_ASSIGN_OR_RETURN(SafetensorsReader file, SafetensorsReader::Open(path));
    reader->shards_.push_back(std::move(file));
  }
  TY_RETURN_IF_ERROR(reader->Index());
  return reader;
}

absl::StatusOr<std::unique_ptr<CheckpointReader>> CheckpointReader::OpenNewest(
    const std::string& job_root, const std::vector<v1::CheckpointManifest>& manifests, int rank,
    std::vector<int64_t>* damaged) {
  absl::Status first = absl::NotFoundError("there is no committed checkpoint");
  for (size_t i = 0; i < manifests.size(); ++i) {
    auto reader = Open(job_root, manifests[i], rank);
    if (reader.ok()) return reader;
    LogWarning("checkpoint of step ", manifests[i].step(), " cannot be used",
               i + 1 < manifests.size() ? "; trying the one before" : "", ": ", reader.status().ToString());
    if (damaged != nullptr) damaged->push_back(manifests[i].step());
    if (i == 0) first = reader.status();
  }
  return first;
}

absl::Status CheckpointReader::Index() {
  for (const SafetensorsReader& shard : shards_) {
    for (const auto& [name, entry] : shard.entries()) {
      if (absl::StartsWith(name, kLocal)) continue;
      if (absl::StartsWith(name, kPart)) {
        TY_RETURN_IF_ERROR(IndexPart(name, shard));
        continue;
      }
      const auto [at, is_new] = tensors_.emplace(name, &shard);
      if (!is_new) {
        return absl::DataLossError(
            absl::StrCat("tensor ", name, " is in two shards: ", at->second->path(), " and ", shard.path()));
      }
    }
  }
  return CheckParts();
}

absl::Status CheckpointReader::IndexPart(const std::string& stored_name, const SafetensorsReader& shard) {
  const std::vector<std::string> fields = absl::StrSplit(stored_name, absl::MaxSplits('/', 3));
  StoredPart part{0, &shard, stored_name};
  int64_t whole = 0;
  if (fields.size() != 4 || !absl::SimpleAtoi(fields[1], &part.begin) || !absl::SimpleAtoi(fields[2], &whole) ||
      fields[3].empty()) {
    return absl::DataLossError(absl::StrCat(shard.path(), ": \"", stored_name, "\" is no name of a part"));
  }
  TensorInParts& tensor = parts_[fields[3]];
  if (!tensor.parts.empty() && tensor.whole != whole) {
    return absl::DataLossError(absl::StrCat("parts of ", fields[3], " are of ", tensor.whole, " elements, and in ",
                                            shard.path(), " of ", whole));
  }
  tensor.whole = whole;
  tensor.parts.push_back(std::move(part));
  std::sort(tensor.parts.begin(), tensor.parts.end(),
            [](const StoredPart& a, const StoredPart& b) { return a.begin < b.begin; });
  return absl::OkStatus();
}

// The parts of each tensor cover it without a gap.
absl::Status CheckpointReader::CheckParts() const {
  for (const auto& [name, tensor] : parts_) {
    int64_t end = 0;
    if (tensors_.count(name) > 0) {
      return absl::DataLossError(absl::StrCat("tensor ", name, " is there whole and in parts"));
    }
    std::optional<kernels::DType> dtype;
    for (const StoredPart& part : tensor.parts) {
      TY_ASSIGN_OR_RETURN(const SafetensorsEntry* entry, part.shard->Find(part.stored_name));
      if (part.begin == 0) dtype = entry->dtype;
      if (part.begin != end || entry->shape.size() != 1 || !dtype || entry->dtype != dtype) {
        return absl::DataLossError(absl::StrCat("parts of ", name, ": elements from ", end,
                                                " are missing, there twice "
                                                "or of another type; see ",
                                                part.shard->path()));
      }
      end += entry->shape[0];
    }
    if (end != tensor.whole) {
      return absl::DataLossError(absl::StrCat("parts of ", name, " end at element ", end, " of ", tensor.whole));
    }
  }
  return absl::OkStatus();
}

const SafetensorsReader* CheckpointReader::OwnShard() const {
  if (rank_ < 0 || rank_ >= static_cast<int>(shards_.size())) return nullptr;
  return &shards_[static_cast<size_t>(rank_)];
}

bool CheckpointReader::HasLocal(const std::string& name) const {
  return OwnShard() != nullptr && OwnShard()->Has(absl::StrCat(kLocal, name));
}

std::vector<std::string> CheckpointReader::TensorNames() const {
  std::vector<std::string> names;
  for (const auto& [name, shard] : tensors_) names.push_back(name);
  for (const auto& [name, parts] : parts_) names.push_back(name);
  std::sort(names.begin(), names.end());
  return names;
}

absl::Status CheckpointReader::Copy(const std::string& stored_name, const SafetensorsReader* shard,
                                    const TensorView& out) const {
  if (shard == nullptr || !shard->Has(stored_name)) {
    return absl::NotFoundError(
        absl::StrCat("the checkpoint of step ", step(), " (", manifest_.directory(), ") has no tensor ", stored_name));
  }
  TY_ASSIGN_OR_RETURN(const SafetensorsEntry* entry, shard->Find(stored_name));
  bool fits = entry->dtype == out.dtype() && static_cast<int>(entry->shape.size()) == out.rank();
  for (int axis = 0; fits && axis < out.rank(); ++axis) fits = entry->shape[static_cast<size_t>(axis)] == out.dim(axis);
  if (!fits) {
    return absl::FailedPreconditionError(
        absl::StrCat("tensor ", stored_name, " is ", Describe(entry->format, entry->shape),
                     " in the checkpoint of step ", step(), ", the job has ", Describe(out)));
  }
  if (out.bytes() > 0) std::memcpy(out.data(), shard->Data(*entry), static_cast<size_t>(out.bytes()));
  return absl::OkStatus();
}

absl::Status CheckpointReader::ReadTensor(const std::string& name, const TensorView& out) const {
  if (parts_.count(name) > 0) return ReadTensorPart(name, 0, out.size(), out);
  const auto found = tensors_.find(name);
  return Copy(name, found == tensors_.end() ? nullptr : found->second, out);
}

absl::Status CheckpointReader::ReadLocalTensor(const std::string& name, const TensorView& out) const {
  return Copy(absl::StrCat(kLocal, name), OwnShard(), out);
}

absl::Status CheckpointReader::ReadTensorPart(const std::string& name, int64_t begin, int64_t whole,
                                              const TensorView& out) const {
  TensorInParts stored;
  const auto in_parts = parts_.find(name);
  if (in_parts != parts_.end()) {
    stored = in_parts->second;
  } else {
    const auto found = tensors_.find(name);
    if (found == tensors_.end()) return Copy(name, nullptr, out);
    TY_ASSIGN_OR_RETURN(const SafetensorsEntry* entry, found->second->Find(name));
    stored = {entry->size(), {{0, found->second, name}}};
  }
  const auto width = static_cast<int64_t>(kernels::SizeOf(out.dtype()));
  for (const StoredPart& part : stored.parts) {
    TY_ASSIGN_OR_RETURN(const SafetensorsEntry* entry, part.shard->Find(part.stored_name));
    if (entry->dtype != out.dtype() || stored.whole != whole || begin < 0 || begin + out.size() > whole) {
      return absl::FailedPreconditionError(absl::StrCat("tensor ", name, " is ", entry->format, " with ", stored.whole,
                                                        " elements in the checkpoint of step ", step(),
                                                        ", the job wants elements ", begin, " to ", begin + out.size(),
                                                        " of ", kernels::Name(out.dtype()), " with ", whole));
    }
    const int64_t first = std::max(begin, part.begin);
    const int64_t last = std::min(begin + out.size(), part.begin + entry->size());
    if (first >= last) continue;
    std::memcpy(static_cast<char*>(out.data()) + (first - begin) * width,
                static_cast<const char*>(part.shard->Data(*entry)) + (first - part.begin) * width,
                static_cast<size_t>((last - first) * width));
  }
  return absl::OkStatus();
}

absl::StatusOr<TensorView> CheckpointReader::Tensor(const std::string& name) const {
  if (parts_.count(name) > 0) {
    return absl::FailedPreconditionError(absl::StrCat("tensor ", name, " is stored in parts: read a copy of it"));
  }
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) {
    return absl::NotFoundError(absl::StrCat("the checkpoint of step ", step(), " has no tensor ", name));
  }
  return found->second->Tensor(name);
}

absl::StatusOr<std::string> CheckpointReader::Text(const std::string& name) const {
  const auto& texts = shards_.front().metadata();
  const auto found = texts.find(name);
  if (found == texts.end()) {
    return absl::NotFoundError(absl::StrCat("the checkpoint of step ", step(), " has no text ", name));
  }
  return found->second;
}

absl::StatusOr<std::string> CheckpointReader::LocalText(const std::string& name) const {
  if (OwnShard() != nullptr) {
    const auto& texts = OwnShard()->metadata();
    const auto found = texts.find(absl::StrCat(kLocal, name));
    if (found != texts.end()) return found->second;
  }
  return absl::NotFoundError(
      absl::StrCat("the checkpoint of step ", step(), " has no text ", name, " of rank ", rank_));
}

}  // namespace trainyard::ckpt
