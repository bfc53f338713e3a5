// A file mapped read-only into memory for as long as the object lives.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace trainyard {

// Files that are cut while mapped raise SIGBUS on access, so map only files that are complete: the writers of this
// project rename a finished file into place and never change it afterwards. Safe from any thread.
class MappedFile {
 public:
  enum class Access { kSequential, kRandom };  // a hint for read-ahead only

  static absl::StatusOr<MappedFile> Open(const std::string& path, Access access = Access::kSequential);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  const uint8_t* data() const { return data_; }  // page-aligned; null for an empty file
  size_t size() const { return size_; }
  absl::string_view text() const { return {reinterpret_cast<const char*>(data_), size_}; }

 private:
  MappedFile(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  const uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace trainyard
