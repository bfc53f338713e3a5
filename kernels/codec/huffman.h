// Canonical Huffman codes of small symbols (2..256), at most 16 bits each: entropy coding of the codes of a codec.
//
// Among codes of one length, smaller symbols have smaller codes; shorter codes come first. In the stream a code begins
// in the lowest free bit, its first bit lowest. A table is made from counts and travels (in checkpoints, between ranks)
// as its lengths only.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace trainyard::kernels {

class HuffmanTable {
 public:
  static constexpr int kLongest = 16;

  // The code with the fewest bits for symbols 0 .. counts.size()-1 seen so often. What was not seen counts half, so
  // every symbol has a code. counts >= 0, their sum below 2^61.
  static HuffmanTable FromCounts(absl::Span<const int64_t> counts);

  // One letter a symbol, 'a' for length 1 to 'p' for 16. InvalidArgument if that is not a complete prefix code.
  std::string ToText() const;
  static absl::StatusOr<HuffmanTable> FromText(absl::string_view text);

  int symbols() const { return static_cast<int>(lengths_.size()); }
  int length(int symbol) const { return lengths_[static_cast<size_t>(symbol)]; }  // bits
  int longest() const { return longest_; }
  int64_t MaxBytes(int64_t count) const { return (count * longest_ + 7) / 8; }

  // Returns the bytes written, at most MaxBytes; the last one is filled up with zeros. Each symbol < symbols().
  int64_t Encode(const uint8_t* symbols, int64_t count, char* out) const;

  // Reads `count` symbols from `bytes` bytes, which are not exceeded. False if they end too early.
  bool Decode(const char* in, int64_t bytes, int64_t count, uint8_t* symbols) const;

 private:
  explicit HuffmanTable(std::vector<uint8_t> lengths);

  std::vector<uint8_t> lengths_;
  int longest_ = 0;
  std::vector<uint32_t> codes_;    // bits << 8 | length, first bit lowest
  std::vector<uint16_t> decoded_;  // by the next `longest_` bits: symbol << 8 | length
};

}  // namespace trainyard::kernels
