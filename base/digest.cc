#include "base/digest.h"

#include <fcntl.h>
#include <unistd.h>
#include <xxhash.h>

#include <cerrno>
#include <vector>

#include "absl/strings/escaping.h"
#include "base/check.h"
#include "base/file.h"
#include "base/unique_fd.h"

namespace trainyard {
namespace {

std::string ToHex(const XXH128_hash_t& hash) {
  XXH128_canonical_t canonical;  // big endian, as xxh128sum prints it
  XXH128_canonicalFromHash(&canonical, hash);
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(canonical.digest), sizeof(canonical.digest)));
}

}  // namespace

struct Digest::State {
  XXH3_state_t* xxh = XXH3_createState();
  ~State() { XXH3_freeState(xxh); }
};

Digest::Digest() : state_(std::make_unique<State>()) {
  TY_CHECK(state_->xxh != nullptr);
  XXH3_128bits_reset(state_->xxh);
}
Digest::Digest(Digest&&) noexcept = default;
Digest& Digest::operator=(Digest&&) noexcept = default;
Digest::~Digest() = default;

void Digest::Update(const void* data, size_t bytes) {
  XXH3_128bits_update(state_->xxh, data, bytes);
}

std::string Digest::Hex() const {
  return ToHex(XXH3_128bits_digest(state_->xxh));
}

std::string DigestOf(absl::string_view bytes) {
  return ToHex(XXH3_128bits(bytes.data(), bytes.size()));
}

absl::StatusOr<std::string> DigestOfFile(const std::string& path) {
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return ErrnoStatus(errno, "open", path);
  Digest digest;
  std::vector<char> buffer(1 << 20);
  while (true) {
    const ssize_t got = read(fd.get(), buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return ErrnoStatus(errno, "read", path);
    if (got == 0) return digest.Hex();
    digest.Update(buffer.data(), static_cast<size_t>(got));
  }
}

}  // namespace trainyard
