#include "worker/prune/task/documents.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/data/permutation.h"

namespace trainyard::prune {
namespace {

constexpr int64_t kChunkTokens = 1 << 16;

// The tokens of a split in order, across shards, from a position on.
class TokenStream {
 public:
  TokenStream(const std::vector<data::TokenShard>& shards, int64_t vocab_size)
      : shards_(shards), vocab_size_(vocab_size) {}

  // Skips to a position of the whole split.
  void Seek(int64_t position) {
    while (shard_ < shards_.size() && position >= shards_[shard_].info().token_count) {
      position -= shards_[shard_++].info().token_count;
    }
    offset_ = position;
  }

  // The next token, -1 at the end. `is_shard_end` says whether it is the last of its shard, which ends a document.
  absl::StatusOr<int32_t> Next(bool* is_shard_end) {
    while (next_ == buffer_.size()) {
      if (shard_ == shards_.size()) return -1;
      const data::TokenShard& shard = shards_[shard_];
      const int64_t count = std::min(kChunkTokens, shard.info().token_count - offset_);
      if (count <= 0) {
        ++shard_;
        offset_ = 0;
        continue;
      }
      buffer_.resize(static_cast<size_t>(count));
      if (shard.Copy(offset_, count, buffer_.data()) >= vocab_size_) {
        return absl::DataLossError(absl::StrCat(shard.path(), ": tokens ", offset_, " to ", offset_ + count,
                                                ": one is not below the vocabulary's ", vocab_size_));
      }
      offset_ += count;
      next_ = 0;
    }
    const int32_t token = buffer_[next_++];
    *is_shard_end = next_ == buffer_.size() && offset_ == shards_[shard_].info().token_count;
    return token;
  }

 private:
  const std::vector<data::TokenShard>& shards_;
  const int64_t vocab_size_;
  size_t shard_ = 0;
  int64_t offset_ = 0;  // in the shard, of what the buffer does not hold yet
  std::vector<int32_t> buffer_;
  size_t next_ = 0;
};

}  // namespace

absl::StatusOr<DocumentPool> DocumentPool::Open(const DocumentOptions& options) {
  TY_ASSIGN_OR_RETURN(const data::DatasetInfo info, data::ReadDatasetInfo(options.directory));
  if (info.vocab_size > options.vocab_size) {
    return absl::InvalidArgumentError(absl::StrCat("data.path: ", options.directory, " has ", info.vocab_size,
                                                   " words, the model ", options.vocab_size));
  }
  TY_ASSIGN_OR_RETURN(const std::vector<data::TokenShard> shards,
                      data::OpenShards(options.directory, info, data::Split::kTrain));
  const bool is_first = options.half == Half::kFirst;
  const int64_t middle = info.TokenCount(data::Split::kTrain) / 2;
  TokenStream stream(shards, options.vocab_size);
  stream.Seek(is_first ? 0 : middle);

  DocumentPool pool;
  pool.name_ = absl::StrCat(options.directory, ": the train split's ", is_first ? "first" : "second", " half");
  // The half begins behind the end of the document that its first token is in the middle of, unless it has no end.
  const bool has_ends = info.end_of_text_id >= 0 && info.DocumentCount(data::Split::kTrain) > 1;
  bool is_inside = !is_first && has_ends;
  Document document;
  const auto close = [&] {
    if (document.size() >= 2) {
      pool.token_count_ += static_cast<int64_t>(document.size());
      pool.documents_.push_back(std::move(document));
    }
    document.clear();
  };
  for (int64_t position = is_first ? 0 : middle; pool.token_count_ < options.most_tokens; ++position) {
    if (is_first && position == middle) break;
    bool is_end = false;
    TY_ASSIGN_OR_RETURN(const int32_t token, stream.Next(&is_end));
    if (token < 0) break;
    is_end |= token == info.end_of_text_id;
    if (is_inside) {
      is_inside = !is_end;
      continue;
    }
    document.push_back(token);
    if (is_end || static_cast<int64_t>(document.size()) == options.sequence_length) close();
  }
  if (pool.token_count_ < options.most_tokens) close();
  if (pool.documents_.empty()) {
    return absl::FailedPreconditionError(absl::StrCat("data.path: ", pool.name_, " holds no document of two tokens"));
  }
  return pool;
}

absl::StatusOr<std::vector<Document>> DocumentPool::Draw(uint64_t seed, int64_t draw, int64_t tokens,
                                                         bool cut_last) const {
  std::vector<Document> drawn;
  if (tokens > token_count_) {
    return absl::FailedPreconditionError(absl::StrCat("data.path: ", name_, " gives a pool of ", token_count_,
                                                      " tokens, of which ", tokens, " are to be drawn"));
  }
  const data::Permutation order(size(), seed, static_cast<uint32_t>(draw));
  int64_t left = tokens;
  for (int64_t i = 0; i < size() && left > 0; ++i) {
    Document next = document(order(i));
    if (cut_last && static_cast<int64_t>(next.size()) > left) next.resize(static_cast<size_t>(left));
    left -= static_cast<int64_t>(next.size());
    drawn.push_back(std::move(next));
  }
  return drawn;
}

}  // namespace trainyard::prune
