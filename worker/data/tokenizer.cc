#include "worker/data/tokenizer.h"

#include <algorithm>
#include <limits>
#include <queue>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/file.h"
#include "base/status_macros.h"

namespace trainyard::data {
namespace {

constexpr int32_t kNoRank = std::numeric_limits<int32_t>::max();
// Above this many symbols a word is merged with a heap, so that a megabyte without a space is no disaster.
constexpr size_t kShortWord = 48;
constexpr size_t kCachedWordBytes = 64;
constexpr size_t kCachedWords = size_t{1} << 17;

uint64_t PairKey(int32_t left, int32_t right) {
  return (static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32) | static_cast<uint32_t>(right);
}

}  // namespace

Tokenizer Tokenizer::Bytes() {
  TokenizerParts parts;
  for (int byte = 0; byte < 256; ++byte) parts.tokens.emplace_back(1, static_cast<char>(byte));
  parts.added = {{256, kEndOfText, true}};
  parts.tokens.push_back(kEndOfText);
  absl::StatusOr<Tokenizer> tokenizer = Create(std::move(parts));
  TY_CHECK_OK(tokenizer);
  return std::move(tokenizer).value();
}

absl::StatusOr<Tokenizer> Tokenizer::Create(TokenizerParts parts) {
  Tokenizer tokenizer;
  const int32_t vocab_size = static_cast<int32_t>(parts.tokens.size());
  const auto bad = [](const auto&... words) { return absl::InvalidArgumentError(absl::StrCat(words...)); };
  tokenizer.is_special_.resize(parts.tokens.size());
  std::vector<bool> is_added(parts.tokens.size());
  for (const AddedToken& added : parts.added) {
    if (added.id < 0 || added.id >= vocab_size || parts.tokens[static_cast<size_t>(added.id)] != added.content) {
      return bad("added token \"", added.content, "\": id ", added.id, " is not its own");
    }
    if (added.content.empty()) return bad("added token ", added.id, " is empty");
    is_added[static_cast<size_t>(added.id)] = true;
    tokenizer.is_special_[static_cast<size_t>(added.id)] = added.special;
    if (added.content == kEndOfText) tokenizer.end_of_text_id_ = added.id;
  }
  absl::flat_hash_map<absl::string_view, int32_t> id_of_token;
  std::fill(std::begin(tokenizer.byte_ids_), std::end(tokenizer.byte_ids_), -1);
  for (int32_t id = 0; id < vocab_size; ++id) {
    const std::string& token = parts.tokens[static_cast<size_t>(id)];
    if (token.empty() || is_added[static_cast<size_t>(id)]) continue;
    if (!id_of_token.emplace(token, id).second) {
      return bad("tokens ", id_of_token[token], " and ", id, " are both \"", absl::CHexEscape(token), "\"");
    }
    if (token.size() == 1) tokenizer.byte_ids_[static_cast<uint8_t>(token[0])] = id;
  }
  for (int byte = 0; byte < 256; ++byte) {
    if (tokenizer.byte_ids_[byte] < 0) return bad("byte ", byte, " has no token");
  }
  for (size_t rank = 0; rank < parts.merges.size(); ++rank) {
    const auto [left, right] = parts.merges[rank];
    if (left < 0 || left >= vocab_size || right < 0 || right >= vocab_size) {
      return bad("merge ", rank, ": (", left, ", ", right, ") are not ids in [0, ", vocab_size, ")");
    }
    const std::string joined =
        absl::StrCat(parts.tokens[static_cast<size_t>(left)], parts.tokens[static_cast<size_t>(right)]);
    const auto result = id_of_token.find(joined);
    if (result == id_of_token.end()) return bad("merge ", rank, ": \"", absl::CHexEscape(joined), "\" is no token");
    const Merge merge{static_cast<int32_t>(rank), result->second};
    if (!tokenizer.merge_of_pair_.emplace(PairKey(left, right), merge).second) {
      return bad("merge ", rank, ": (", left, ", ", right, ") stands there twice");
    }
  }
  if (parts.ignore_merges) tokenizer.id_of_token_.insert(id_of_token.begin(), id_of_token.end());
  tokenizer.parts_ = std::move(parts);
  return tokenizer;
}

absl::StatusOr<Tokenizer> Tokenizer::Load(const std::string& path) {
  TY_ASSIGN_OR_RETURN(const std::string json, ReadFile(path));
  return FromJson(json, path);
}

absl::Status Tokenizer::Save(const std::string& path) const {
  return WriteFileAtomic(path, ToJson());
}

std::vector<int32_t> Tokenizer::Encode(absl::string_view text) const {
  std::vector<int32_t> ids;
  Encoder(*this).Encode(text, /*parse_added=*/true, &ids);
  return ids;
}

std::string Tokenizer::Decode(absl::Span<const int32_t> ids, bool keep_special) const {
  std::string text;
  for (int32_t id : ids) {
    if (id < 0 || id >= vocab_size()) continue;
    if (is_special_[static_cast<size_t>(id)] && !keep_special) continue;
    text += parts_.tokens[static_cast<size_t>(id)];
  }
  return text;
}

const Tokenizer::Merge* Tokenizer::FindMerge(int32_t left, int32_t right) const {
  const auto found = merge_of_pair_.find(PairKey(left, right));
  return found == merge_of_pair_.end() ? nullptr : &found->second;
}

void Tokenizer::EncodeWord(absl::string_view word, std::vector<int32_t>* out) const {
  if (parts_.ignore_merges) {
    if (const auto found = id_of_token_.find(word); found != id_of_token_.end()) {
      out->push_back(found->second);
      return;
    }
  }
  const size_t begin = out->size();
  for (char byte : word) out->push_back(byte_ids_[static_cast<uint8_t>(byte)]);
  if (merge_of_pair_.empty() || word.size() < 2) return;
  if (word.size() <= kShortWord) {
    MergeShort(out, begin);
  } else {
    MergeLong(out, begin);
  }
}

void Tokenizer::MergeShort(std::vector<int32_t>* symbols, size_t begin) const {
  int32_t* const s = symbols->data() + begin;
  size_t count = symbols->size() - begin;
  int32_t rank[kShortWord], result[kShortWord];  // of the pair (i, i + 1)
  const auto look_up = [&](size_t i) {
    const Merge* const merge = FindMerge(s[i], s[i + 1]);
    rank[i] = merge == nullptr ? kNoRank : merge->rank;
    result[i] = merge == nullptr ? -1 : merge->result;
  };
  for (size_t i = 0; i + 1 < count; ++i) look_up(i);
  while (count > 1) {
    const size_t best = static_cast<size_t>(std::min_element(rank, rank + count - 1) - rank);  // the leftmost of equals
    if (rank[best] == kNoRank) break;
    s[best] = result[best];
    --count;
    std::copy(s + best + 2, s + count + 1, s + best + 1);
    std::copy(rank + best + 1, rank + count, rank + best);
    std::copy(result + best + 1, result + count, result + best);
    if (best + 1 < count) look_up(best);
    if (best > 0) look_up(best - 1);
  }
  symbols->resize(begin + count);
}

void Tokenizer::MergeLong(std::vector<int32_t>* symbols, size_t begin) const {
  // A list over the places of the word's bytes; a merge keeps the left place and takes the right one out.
  const size_t count = symbols->size() - begin;
  std::vector<int32_t> s(symbols->begin() + static_cast<std::ptrdiff_t>(begin), symbols->end());
  std::vector<size_t> next(count), previous(count);
  for (size_t i = 0; i < count; ++i) next[i] = i + 1, previous[i] = i - 1;  // previous of the first is never read

  struct Candidate {
    int32_t rank;
    size_t place;
    int32_t left, right, result;
    bool operator>(const Candidate& other) const { return std::tie(rank, place) > std::tie(other.rank, other.place); }
  };
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  const auto push = [&](size_t place) {
    if (next[place] >= count) return;
    const int32_t right = s[next[place]];
    if (const Merge* const merge = FindMerge(s[place], right)) {
      queue.push({merge->rank, place, s[place], right, merge->result});
    }
  };
  for (size_t i = 0; i + 1 < count; ++i) push(i);
  while (!queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    const size_t place = best.place;
    // Stale if either side has been merged since; a place taken out holds -1.
    if (s[place] != best.left || next[place] >= count || s[next[place]] != best.right) continue;
    const size_t removed = next[place];
    s[place] = best.result;
    s[removed] = -1;
    next[place] = next[removed];
    if (next[place] < count) previous[next[place]] = place;
    push(place);
    if (place > 0) push(previous[place]);
  }
  symbols->resize(begin);
  for (size_t i = 0; i < count; i = next[i]) symbols->push_back(s[i]);
}

std::pair<size_t, const AddedToken*> Tokenizer::FindAdded(absl::string_view text, size_t from) const {
  bool starts[256] = {};
  for (const AddedToken& added : parts_.added) starts[static_cast<uint8_t>(added.content[0])] = true;
  for (size_t i = from; i < text.size(); ++i) {
    if (!starts[static_cast<uint8_t>(text[i])]) continue;
    const AddedToken* longest = nullptr;
    for (const AddedToken& added : parts_.added) {
      if (text.substr(i, added.content.size()) == added.content &&
          (longest == nullptr || added.content.size() > longest->content.size())) {
        longest = &added;
      }
    }
    if (longest != nullptr) return {i, longest};
  }
  return {absl::string_view::npos, nullptr};
}

Encoder::Encoder(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

void Encoder::Encode(absl::string_view text, bool parse_added, std::vector<int32_t>* out) {
  size_t position = 0;
  while (parse_added) {
    const auto [place, added] = tokenizer_.FindAdded(text, position);
    if (added == nullptr) break;
    EncodePlain(text.substr(position, place - position), out);
    out->push_back(added->id);
    position = place + added->content.size();
  }
  EncodePlain(text.substr(position), out);
}

void Encoder::EncodePlain(absl::string_view text, std::vector<int32_t>* out) {
  if (tokenizer_.merge_of_pair_.empty() && !tokenizer_.parts_.ignore_merges) {  // words change nothing
    out->reserve(out->size() + text.size());
    for (char byte : text) out->push_back(tokenizer_.byte_ids_[static_cast<uint8_t>(byte)]);
    return;
  }
  WordSplitter words(tokenizer_.parts_.pre_tokenizer, text);
  absl::string_view word;
  while (words.Next(&word)) {
    if (word.size() > kCachedWordBytes) {
      tokenizer_.EncodeWord(word, out);
      continue;
    }
    if (const auto hit = cache_.find(word); hit != cache_.end()) {
      const auto [begin, end] = hit->second;
      out->insert(out->end(), cached_ids_.begin() + begin, cached_ids_.begin() + end);
      continue;
    }
    const size_t begin = out->size();
    tokenizer_.EncodeWord(word, out);
    if (cache_.size() >= kCachedWords) {
      cache_.clear();
      cached_ids_.clear();
    }
    const uint32_t cached = static_cast<uint32_t>(cached_ids_.size());
    cached_ids_.insert(cached_ids_.end(), out->begin() + static_cast<std::ptrdiff_t>(begin), out->end());
    cache_.emplace(std::string(word), std::make_pair(cached, static_cast<uint32_t>(cached_ids_.size())));
  }
}

}  // namespace trainyard::data
