// Byte-level BPE (Sennrich et al., arXiv:1508.07909; over bytes as in GPT-2), in the form of a Hugging Face
// tokenizer.json, and encoding exactly as Hugging Face's `tokenizers` library does with add_special_tokens = false.
//
// Text is cut at the added tokens ("<|endoftext|>"), each piece is split into words by the pre-tokenizer
// (pre_tokenizer.h), each word's bytes are mapped to one token each, and neighbours are merged by rising rank,
// leftmost first. Every byte has a token, so every input, also what is not UTF-8, encodes and decodes to itself.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "worker/data/pre_tokenizer.h"

namespace trainyard::data {

inline constexpr char kEndOfText[] = "<|endoftext|>";

struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool special = true;  // left out by Decode
};

// What a tokenizer is made of. Ids are 0 .. tokens.size() - 1; a hole in a loaded file's numbering is an empty string.
struct TokenizerParts {
  std::vector<std::string> tokens;                  // the bytes each id stands for (added tokens: their content)
  std::vector<std::pair<int32_t, int32_t>> merges;  // by falling priority; the result is the id of the joined bytes
  std::vector<AddedToken> added;
  PreTokenizer pre_tokenizer;
  bool ignore_merges = false;  // a word that is itself a token is taken whole (Llama 3)
};

// Immutable; safe from any thread.
class Tokenizer {
 public:
  // Id = byte, then <|endoftext|> = 256: vocab_size 257, no merges.
  static Tokenizer Bytes();

  // InvalidArgument if parts contradict each other: a byte without a token, a merge into no token, repeated tokens.
  static absl::StatusOr<Tokenizer> Create(TokenizerParts parts);

  // Reads a byte-level BPE tokenizer.json. InvalidArgument, naming file and field, for the kinds we do not have
  // (WordPiece, Unigram, normalizers, other pre-tokenizers) and for files that contradict themselves.
  static absl::StatusOr<Tokenizer> Load(const std::string& path);
  static absl::StatusOr<Tokenizer> FromJson(const std::string& json, const std::string& path);

  // tokenizer.json. A loaded file is written back as it was read, byte for byte.
  std::string ToJson() const;
  absl::Status Save(const std::string& path) const;  // atomic and durable

  int32_t vocab_size() const { return static_cast<int32_t>(parts_.tokens.size()); }
  int32_t end_of_text_id() const { return end_of_text_id_; }  // -1 if the vocabulary has none
  const TokenizerParts& parts() const { return parts_; }

  // Encodes without keeping a cache: for prompts. `Encoder` is for long texts.
  std::vector<int32_t> Encode(absl::string_view text) const;

  // The bytes of the tokens; special ones give nothing unless keep_special, ids outside the vocabulary nothing.
  std::string Decode(absl::Span<const int32_t> ids, bool keep_special = false) const;

 private:
  friend class Encoder;
  struct Merge {
    int32_t rank;
    int32_t result;
  };

  Tokenizer() = default;
  // Appends the tokens of one word.
  void EncodeWord(absl::string_view word, std::vector<int32_t>* out) const;
  void MergeShort(std::vector<int32_t>* symbols, size_t begin) const;
  void MergeLong(std::vector<int32_t>* symbols, size_t begin) const;
  const Merge* FindMerge(int32_t left, int32_t right) const;
  // The first added token in `text` at or after `from`: its position and number, or npos.
  std::pair<size_t, const AddedToken*> FindAdded(absl::string_view text, size_t from) const;

  TokenizerParts parts_;
  std::string source_json_;  // of a loaded file
  int32_t end_of_text_id_ = -1;
  int32_t byte_ids_[256] = {};
  std::vector<bool> is_special_;
  absl::flat_hash_map<uint64_t, Merge> merge_of_pair_;
  absl::flat_hash_map<std::string, int32_t> id_of_token_;  // filled only for ignore_merges
};

// Encodes with a cache of words. Borrows the tokenizer. One thread at a time.
class Encoder {
 public:
  explicit Encoder(const Tokenizer& tokenizer);

  // Appends the ids of `text`. With parse_added, added tokens spelled out in the text become themselves; without, they
  // are text like any other, so that a document cannot forge an end of document.
  void Encode(absl::string_view text, bool parse_added, std::vector<int32_t>* out);

 private:
  void EncodePlain(absl::string_view text, std::vector<int32_t>* out);

  const Tokenizer& tokenizer_;
  // Word -> its ids, as a range of cached_ids_. Cleared when full, which changes no result.
  absl::flat_hash_map<std::string, std::pair<uint32_t, uint32_t>> cache_;
  std::vector<int32_t> cached_ids_;
};

}  // namespace trainyard::data
