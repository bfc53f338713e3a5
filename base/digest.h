// XXH3-128 of bytes, as 32 lower-case hex digits. It finds damage, not malice: anybody can make two files that agree.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace trainyard {

// The digest of all bytes given to Update so far, however they were cut into calls.
class Digest {
 public:
  Digest();
  Digest(Digest&&) noexcept;
  Digest& operator=(Digest&&) noexcept;
  ~Digest();

  void Update(const void* data, size_t bytes);
  std::string Hex() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

std::string DigestOf(absl::string_view bytes);

// Digest of a file's content, read once from start to end.
absl::StatusOr<std::string> DigestOfFile(const std::string& path);

}  // namespace trainyard
