#include "worker/data/bpe_trainer.h"

#include <algorithm>
#include <queue>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace trainyard::data {
namespace {

constexpr int32_t kFirstMerge = 257;
constexpr int32_t kMaxVocab = int32_t{1} << 24;
// Longer "words" are encoded data and ruled lines: they would teach nothing and cost a pass each for every merge.
constexpr size_t kLongestWord = 256;

uint64_t PairKey(int32_t left, int32_t right) {
  return (static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32) | static_cast<uint32_t>(right);
}

struct Word {
  std::vector<int32_t> symbols;
  int64_t count;
};

struct Pair {
  int64_t count = 0;
  std::vector<uint32_t> words;  // in which it is or was; may repeat
};

struct Candidate {
  int64_t count;
  uint64_t key;
  // For a max-heap: more frequent first, then the smaller ids.
  bool operator<(const Candidate& other) const { return count != other.count ? count < other.count : key > other.key; }
};

// The words with the counts of all their pairs, kept up to date merge by merge.
class PairCounts {
 public:
  explicit PairCounts(std::vector<Word> words) : words_(std::move(words)) {
    for (uint32_t w = 0; w < words_.size(); ++w) {
      const std::vector<int32_t>& symbols = words_[w].symbols;
      for (size_t i = 0; i + 1 < symbols.size(); ++i) Increase(PairKey(symbols[i], symbols[i + 1]), w);
    }
    for (const auto& [key, pair] : pairs_) heap_.push({pair.count, key});
    increased_.clear();
  }

  // The most frequent pair. Every increase puts an entry on the heap, so none is missing; one whose count has fallen
  // since goes back with its count of today.
  bool Best(Candidate* best) {
    while (!heap_.empty()) {
      *best = heap_.top();
      heap_.pop();
      const auto found = pairs_.find(best->key);
      if (found == pairs_.end() || found->second.count == 0) continue;
      if (found->second.count == best->count) return true;
      heap_.push({found->second.count, best->key});
    }
    return false;
  }

  void Merge(uint64_t key, int32_t result) {
    std::vector<uint32_t> words = std::move(pairs_[key].words);
    pairs_.erase(key);
    std::sort(words.begin(), words.end());
    words.erase(std::unique(words.begin(), words.end()), words.end());
    for (uint32_t w : words) MergeIn(w, key, result);
    std::sort(increased_.begin(), increased_.end());
    increased_.erase(std::unique(increased_.begin(), increased_.end()), increased_.end());
    for (uint64_t pair : increased_) heap_.push({pairs_[pair].count, pair});
    increased_.clear();
  }

 private:
  void Increase(uint64_t key, uint32_t word) {
    Pair& pair = pairs_[key];
    if (increased_.empty() || increased_.back() != key) increased_.push_back(key);
    if (pair.words.empty() || pair.words.back() != word) pair.words.push_back(word);
    pair.count += words_[word].count;
  }

  void Decrease(uint64_t key, uint32_t word, uint64_t merged) {
    if (key == merged) return;  // it goes as a whole
    Pair& pair = pairs_[key];
    pair.count -= words_[word].count;
    TY_CHECK_GE(pair.count, 0);
  }

  void MergeIn(uint32_t w, uint64_t key, int32_t result) {
    std::vector<int32_t>& s = words_[w].symbols;
    const int32_t left = static_cast<int32_t>(key >> 32);
    const int32_t right = static_cast<int32_t>(key & 0xFFFFFFFF);
    size_t out = 0;
    for (size_t i = 0; i < s.size(); ++i) {
      if (i + 1 == s.size() || s[i] != left || s[i + 1] != right) {
        s[out++] = s[i];
        continue;
      }
      if (out > 0) {
        Decrease(PairKey(s[out - 1], left), w, key);
        Increase(PairKey(s[out - 1], result), w);
      }
      if (i + 2 < s.size()) {
        Decrease(PairKey(right, s[i + 2]), w, key);
        Increase(PairKey(result, s[i + 2]), w);
      }
      s[out++] = result;
      ++i;
    }
    s.resize(out);
  }

  std::vector<Word> words_;
  absl::flat_hash_map<uint64_t, Pair> pairs_;
  std::priority_queue<Candidate> heap_;
  std::vector<uint64_t> increased_;  // by this merge; may repeat
};

}  // namespace

void BpeTrainer::Add(absl::string_view document) {
  WordSplitter words(options_.pre_tokenizer, document);
  absl::string_view word;
  while (words.Next(&word)) {
    if (word.size() > kLongestWord) continue;
    if (const auto found = counts_.find(word); found != counts_.end()) {
      ++found->second;
    } else {
      counts_.emplace(std::string(word), 1);
    }
  }
}

absl::StatusOr<Tokenizer> BpeTrainer::Train() const {
  if (options_.vocab_size < kFirstMerge || options_.vocab_size > kMaxVocab) {
    return absl::InvalidArgumentError(
        absl::StrCat("vocab_size: ", options_.vocab_size, " is not in [", kFirstMerge, ", ", kMaxVocab, "]"));
  }
  TokenizerParts parts = Tokenizer::Bytes().parts();
  parts.pre_tokenizer = options_.pre_tokenizer;
  std::vector<Word> words;
  words.reserve(counts_.size());
  for (const auto& [text, count] : counts_) {
    Word word{{}, count};
    for (char byte : text) word.symbols.push_back(static_cast<uint8_t>(byte));
    words.push_back(std::move(word));
  }
  PairCounts pairs(std::move(words));
  // Two merges may spell the same bytes; the vocabulary holds a token once, so the second gets the id of the first.
  absl::flat_hash_map<std::string, int32_t> id_of_token;
  for (int32_t id = 0; id < 256; ++id) id_of_token[parts.tokens[static_cast<size_t>(id)]] = id;
  Candidate best;
  while (static_cast<int32_t>(parts.tokens.size()) < options_.vocab_size && pairs.Best(&best)) {
    if (best.count < options_.min_count) break;
    const int32_t left = static_cast<int32_t>(best.key >> 32);
    const int32_t right = static_cast<int32_t>(best.key & 0xFFFFFFFF);
    std::string token = absl::StrCat(parts.tokens[static_cast<size_t>(left)], parts.tokens[static_cast<size_t>(right)]);
    const auto [place, is_new] = id_of_token.emplace(token, static_cast<int32_t>(parts.tokens.size()));
    if (is_new) parts.tokens.push_back(std::move(token));
    parts.merges.emplace_back(left, right);
    pairs.Merge(best.key, place->second);
  }
  return Tokenizer::Create(std::move(parts));
}

}  // namespace trainyard::data
