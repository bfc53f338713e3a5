// The safetensors format (github.com/huggingface/safetensors): a u64 little-endian header length, a JSON header
// {"name": {"dtype", "shape", "data_offsets": [begin, end]}, "__metadata__": {string: string}}, then the tensors'
// bytes.
//
// A file is accepted only if every byte is accounted for: tensors lie back to back from 0 to the end of the file, each
// as long as its shape and dtype say. Errors name the file, the tensor and the values: DataLoss for a file that is cut,
// has holes or is no such file, InvalidArgument for one that is sound but uses what the format does not know.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/digest.h"
#include "base/mapped_file.h"
#include "base/unique_fd.h"
#include "kernels/core/tensor.h"

namespace trainyard::model {

struct SafetensorsEntry {
  std::string name;
  std::string format;                   // as in the file: "F32", "BF16", "I64", ...
  std::optional<kernels::DType> dtype;  // absent for formats our tensors do not have (F64, I64, I16, I8, U64, BOOL)
  std::vector<int64_t> shape;           // empty for a scalar
  uint64_t begin = 0, end = 0;          // bytes, relative to the first tensor

  uint64_t bytes() const { return end - begin; }
  int64_t size() const;  // elements
};

// A mapped file. Views borrow from it. Safe from any thread.
class SafetensorsReader {
 public:
  static absl::StatusOr<SafetensorsReader> Open(const std::string& path);

  const std::string& path() const { return path_; }
  const std::map<std::string, SafetensorsEntry>& entries() const { return entries_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  uint64_t file_bytes() const { return file_.size(); }

  bool Has(const std::string& name) const { return entries_.count(name) > 0; }
  absl::StatusOr<const SafetensorsEntry*> Find(const std::string& name) const;  // NotFound
  const void* Data(const SafetensorsEntry& entry) const;

  // The tensor as a view of at most kMaxRank dimensions. The memory is read-only: writing through the view faults.
  // InvalidArgument, beside the reasons of the types, for a tensor of a foreign file that is not aligned to its
  // element; Data and memcpy read that one.
  absl::StatusOr<kernels::TensorView> Tensor(const std::string& name) const;

  // XXH3-128 of the whole file, as SafetensorsWriter::Finish returned it. Reads every byte.
  std::string FileDigest() const;

 private:
  SafetensorsReader(std::string path, MappedFile file) : path_(std::move(path)), file_(std::move(file)) {}
  absl::Status Parse();

  std::string path_;
  MappedFile file_;
  uint64_t data_offset_ = 0;
  std::map<std::string, SafetensorsEntry> entries_;
  std::map<std::string, std::string> metadata_;
};

struct SafetensorsTensorSpec {
  std::string name;
  kernels::DType dtype = kernels::DType::kF32;
  std::vector<int64_t> shape;
};

struct SafetensorsFileInfo {
  uint64_t bytes = 0;
  std::string digest;  // XXH3-128 of the file, hex
};

// Writes a file as a stream: the header first, from the specs, then each tensor's bytes, in order() and in pieces of
// any size, so that no second copy of a tensor is held. The bytes go to "<path>.tmp"; Finish syncs and renames them
// into place; a writer that goes away before leaves nothing. One thread at a time.
//
// Tensors are ordered by falling element size, then by name, and the first begins at a multiple of 64 bytes, so every
// tensor is aligned to its element in the mapped file.
class SafetensorsWriter {
 public:
  // InvalidArgument for names that are empty, repeated or reserved ("__metadata__"), and negative extents.
  static absl::StatusOr<SafetensorsWriter> Create(const std::string& path, std::vector<SafetensorsTensorSpec> tensors,
                                                  const std::map<std::string, std::string>& metadata = {});
  SafetensorsWriter(SafetensorsWriter&&) noexcept;
  SafetensorsWriter& operator=(SafetensorsWriter&&) = delete;
  ~SafetensorsWriter();

  const std::vector<SafetensorsTensorSpec>& order() const { return order_; }

  // Appends to the tensor whose turn it is; `name` must be that tensor, and it must have that many bytes left.
  absl::Status Append(const std::string& name, const void* data, uint64_t bytes);

  // FailedPrecondition if bytes are missing. Call once; the file exists at `path`, durable, when this returns OK.
  absl::StatusOr<SafetensorsFileInfo> Finish();

 private:
  SafetensorsWriter() = default;
  absl::Status Write(const void* data, uint64_t bytes);
  void SkipComplete();  // moves on over tensors that have all their bytes

  std::string path_;
  UniqueFd fd_;
  std::vector<SafetensorsTensorSpec> order_;
  size_t current_ = 0;  // index into order_
  uint64_t current_written_ = 0;
  uint64_t file_bytes_ = 0;
  Digest digest_;
};

// Writes whole tensors at once: `data[i]` belongs to `tensors[i]` and has its bytes.
absl::StatusOr<SafetensorsFileInfo> WriteSafetensors(const std::string& path,
                                                     const std::vector<SafetensorsTensorSpec>& tensors,
                                                     const std::vector<const void*>& data,
                                                     const std::map<std::string, std::string>& metadata = {});

}  // namespace trainyard::model
