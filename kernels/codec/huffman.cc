#include "kernels/codec/huffman.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "kernels/codec/code_lengths.h"

namespace trainyard::kernels {
namespace {

uint32_t Reversed(uint32_t code, int length) {
  uint32_t reversed = 0;
  for (int bit = 0; bit < length; ++bit) reversed |= ((code >> bit) & 1) << (length - 1 - bit);
  return reversed;
}

}  // namespace

HuffmanTable::HuffmanTable(std::vector<uint8_t> lengths) : lengths_(std::move(lengths)), codes_(lengths_.size()) {
  longest_ = *std::max_element(lengths_.begin(), lengths_.end());
  decoded_.resize(size_t{1} << longest_);
  uint32_t code = 0;
  for (int length = 1; length <= longest_; ++length, code <<= 1) {
    for (size_t symbol = 0; symbol < lengths_.size(); ++symbol) {
      if (lengths_[symbol] != length) continue;
      const uint32_t bits = Reversed(code++, length);
      codes_[symbol] = bits << 8 | static_cast<uint32_t>(length);
      for (size_t next = bits; next < decoded_.size(); next += size_t{1} << length) {
        decoded_[next] = static_cast<uint16_t>(symbol << 8 | static_cast<size_t>(length));
      }
    }
  }
}

HuffmanTable HuffmanTable::FromCounts(absl::Span<const int64_t> counts) {
  TY_CHECK(counts.size() >= 2 && counts.size() <= 256);
  std::vector<int64_t> weights;
  for (const int64_t count : counts) weights.push_back(count > 0 ? 2 * count : 1);
  return HuffmanTable(internal::CodeLengths(weights, kLongest));
}

std::string HuffmanTable::ToText() const {
  std::string text;
  for (const uint8_t length : lengths_) text += static_cast<char>('a' + length - 1);
  return text;
}

absl::StatusOr<HuffmanTable> HuffmanTable::FromText(absl::string_view text) {
  if (text.size() < 2 || text.size() > 256) {
    return absl::InvalidArgumentError(absl::StrCat("Huffman table of ", text.size(), " symbols, not 2..256"));
  }
  std::vector<uint8_t> lengths;
  uint32_t used = 0;  // of the 2^16 leaves of a full tree
  for (const char letter : text) {
    if (letter < 'a' || letter >= 'a' + kLongest) {
      return absl::InvalidArgumentError(absl::StrCat("Huffman table \"", text, "\": letters are a..p"));
    }
    lengths.push_back(static_cast<uint8_t>(letter - 'a' + 1));
    used += 1u << (kLongest - lengths.back());
  }
  if (used != 1u << kLongest) {
    return absl::InvalidArgumentError(absl::StrCat("Huffman table \"", text, "\" is not a complete prefix code"));
  }
  return HuffmanTable(std::move(lengths));
}

int64_t HuffmanTable::Encode(const uint8_t* symbols, int64_t count, char* out) const {
  char* const begin = out;
  uint64_t pending = 0;
  int bits = 0;
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t code = codes_[symbols[i]];
    pending |= static_cast<uint64_t>(code >> 8) << bits;
    bits += static_cast<int>(code & 0xFF);
    if (bits >= 32) {
      const uint32_t low = static_cast<uint32_t>(pending);
      std::memcpy(out, &low, sizeof(low));
      out += sizeof(low);
      pending >>= 32;
      bits -= 32;
    }
  }
  for (; bits > 0; bits -= 8, pending >>= 8) *out++ = static_cast<char>(pending);
  return out - begin;
}

bool HuffmanTable::Decode(const char* in, int64_t bytes, int64_t count, uint8_t* symbols) const {
  const char* const end = in + bytes;
  const uint64_t mask = (uint64_t{1} << longest_) - 1;
  uint64_t pending = 0;
  int bits = 0;  // of `pending` that have been read; what lies above is zero
  int64_t i = 0;
  while (end - in >= 8) {
    uint64_t next;
    std::memcpy(&next, in, sizeof(next));
    pending |= next << bits;
    const int taken = (63 - bits) / 8;
    in += taken;
    bits += 8 * taken;
    pending &= (uint64_t{1} << bits) - 1;  // the rest is read again
    while (bits >= kLongest) {
      if (i == count) return true;
      const uint32_t entry = decoded_[pending & mask];
      symbols[i++] = static_cast<uint8_t>(entry >> 8);
      pending >>= entry & 0xFF;
      bits -= static_cast<int>(entry & 0xFF);
    }
  }
  for (; i < count; ++i) {
    for (; bits < kLongest && in < end; bits += 8) {
      pending |= static_cast<uint64_t>(static_cast<uint8_t>(*in++)) << bits;
    }
    const uint32_t entry = decoded_[pending & mask];
    const int length = static_cast<int>(entry & 0xFF);
    if (length > bits) return false;
    symbols[i] = static_cast<uint8_t>(entry >> 8);
    pending >>= length;
    bits -= length;
  }
  return true;
}

}  // namespace trainyard::kernels
