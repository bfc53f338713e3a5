#include "worker/comm/gloo/address_blob.h"

#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace trainyard::comm {
namespace {

constexpr uint32_t kMagic = 0x31435954;  // "TYC1"
constexpr uint32_t kMaxRanks = 1 << 16;

template <typename T>
void Put(T value, std::string* out) {
  out->append(reinterpret_cast<const char*>(&value), sizeof(value));
}

void PutString(const std::string& text, std::string* out) {
  Put(static_cast<uint32_t>(text.size()), out);
  out->append(text);
}

class Parser {
 public:
  explicit Parser(absl::string_view bytes) : bytes_(bytes) {}

  template <typename T>
  T Get() {
    T value{};
    if (Need(sizeof(T))) {
      std::memcpy(&value, bytes_.data(), sizeof(T));
      bytes_.remove_prefix(sizeof(T));
    }
    return value;
  }

  std::string GetString() {
    const uint32_t length = Get<uint32_t>();
    if (!Need(length)) return "";
    std::string text(bytes_.substr(0, length));
    bytes_.remove_prefix(length);
    return text;
  }

  bool failed() const { return failed_; }
  bool complete() const { return !failed_ && bytes_.empty(); }

 private:
  bool Need(size_t count) {
    failed_ = failed_ || bytes_.size() < count;
    return !failed_;
  }

  absl::string_view bytes_;
  bool failed_ = false;
};

std::string Describe(const CommunicatorTag& tag, int rank, int world_size) {
  return absl::StrCat("job ", tag.job_uid, " attempt ", tag.attempt, " fence ", tag.fence, " rank ", rank, " of ",
                      world_size);
}

}  // namespace

std::string EncodeAddressBlob(const AddressBlob& blob) {
  std::string out;
  Put(kMagic, &out);
  PutString(blob.tag.job_uid, &out);
  Put(blob.tag.attempt, &out);
  Put(blob.tag.fence, &out);
  Put(static_cast<uint32_t>(blob.rank), &out);
  Put(static_cast<uint32_t>(blob.world_size), &out);
  Put(static_cast<uint32_t>(blob.channels.size()), &out);
  for (const std::vector<std::string>& channel : blob.channels) {
    for (const std::string& address : channel) PutString(address, &out);
  }
  return out;
}

absl::StatusOr<AddressBlob> DecodeAddressBlob(absl::string_view bytes) {
  Parser parser(bytes);
  const auto malformed = [&](absl::string_view why) {
    return absl::InvalidArgumentError(
        absl::StrCat("communicator address of ", bytes.size(), " bytes is malformed: ", why));
  };
  if (parser.Get<uint32_t>() != kMagic) return malformed("it does not begin with TYC1");
  AddressBlob blob;
  blob.tag.job_uid = parser.GetString();
  blob.tag.attempt = parser.Get<int32_t>();
  blob.tag.fence = parser.Get<uint64_t>();
  const uint32_t rank = parser.Get<uint32_t>();
  const uint32_t world_size = parser.Get<uint32_t>();
  const uint32_t channels = parser.Get<uint32_t>();
  if (parser.failed()) return malformed("it is cut");
  if (world_size < 1 || world_size > kMaxRanks || rank >= world_size || channels > 16) {
    return malformed(absl::StrCat("rank ", rank, " of ", world_size, ", ", channels, " channels"));
  }
  blob.rank = static_cast<int>(rank);
  blob.world_size = static_cast<int>(world_size);
  for (uint32_t c = 0; c < channels && !parser.failed(); ++c) {
    std::vector<std::string>& addresses = blob.channels.emplace_back();
    for (uint32_t r = 0; r < world_size && !parser.failed(); ++r) addresses.push_back(parser.GetString());
  }
  if (!parser.complete()) return malformed(parser.failed() ? "it is cut" : "bytes follow its end");
  return blob;
}

absl::Status CheckAddressBlob(const AddressBlob& blob, const CommunicatorTag& tag, int rank, int world_size) {
  if (blob.tag.job_uid == tag.job_uid && blob.tag.attempt == tag.attempt && blob.tag.fence == tag.fence &&
      blob.rank == rank && blob.world_size == world_size) {
    return absl::OkStatus();
  }
  return absl::AbortedError(absl::StrCat("stale communicator address: it is that of ",
                                         Describe(blob.tag, blob.rank, blob.world_size), ", expected ",
                                         Describe(tag, rank, world_size)));
}

}  // namespace trainyard::comm
