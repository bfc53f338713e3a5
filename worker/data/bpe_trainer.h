// Learns the merges of a byte-level BPE from a corpus: again and again the most frequent pair of neighbouring symbols
// inside words becomes a new symbol (Sennrich et al., arXiv:1508.07909, section 3.2). Of equally frequent pairs the one
// with the smaller ids wins, so a corpus gives the same tokenizer every time, in any order of its documents.
#pragma once

#include <cstdint>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "worker/data/tokenizer.h"

namespace trainyard::data {

struct BpeOptions {
  int32_t vocab_size = 4096;  // 257 .. 2^24, of which 256 are bytes and one is <|endoftext|>
  PreTokenizer pre_tokenizer = {};
  int64_t min_count = 2;  // pairs that are rarer are not merged
};

// Keeps the distinct words of the corpus and their counts. One thread at a time.
class BpeTrainer {
 public:
  explicit BpeTrainer(const BpeOptions& options) : options_(options) {}

  void Add(absl::string_view document);

  // Ids: bytes 0..255, <|endoftext|> 256, merges in the order learned. The vocabulary comes out smaller if the corpus
  // has no further pair. InvalidArgument for a vocab_size out of range.
  absl::StatusOr<Tokenizer> Train() const;

  size_t word_count() const { return counts_.size(); }

 private:
  const BpeOptions options_;
  absl::flat_hash_map<std::string, int64_t> counts_;
};

}  // namespace trainyard::data
