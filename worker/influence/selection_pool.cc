#include "worker/influence/selection_pool.h"

#include <algorithm>
#include <limits>
#include <map>

#include "absl/strings/str_cat.h"
#include "base/digest.h"
#include "base/status_macros.h"
#include "kernels/core/philox.h"
#include "kernels/tangent/random_direction.h"
#include "worker/data/permutation.h"

namespace trainyard::influence {

absl::StatusOr<SelectionPool> SelectionPool::Open(const std::string& directory, const std::string& field,
                                                  int64_t sequence_length, int64_t vocab_size) {
  TY_ASSIGN_OR_RETURN(data::SampleSet set, data::SampleSet::Open(directory));
  if (set.info().vocab_size > vocab_size) {
    return absl::InvalidArgumentError(absl::StrCat(field, ": the vocabulary of ", directory, " has ",
                                                   set.info().vocab_size, " tokens, the model's only ", vocab_size));
  }
  SelectionPool pool(std::move(set));
  pool.sequence_length_ = sequence_length;
  for (int64_t i = 0; i < pool.set_.size(); ++i) {
    const data::SampleRecord& record = pool.set_.record(i);
    if (record.split == data::Split::kValidation) continue;
    if (record.LabelCount(sequence_length) > 0) {
      pool.order_.push_back(i);
    } else {
      ++pool.unlabelled_count_;
    }
  }
  if (pool.order_.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, ": ", directory, " has no sample with a label: ", pool.set_.size(), " samples, ",
                     pool.unlabelled_count_, " without a label within sequence_length ", sequence_length));
  }
  std::sort(pool.order_.begin(), pool.order_.end(),
            [&](int64_t a, int64_t b) { return pool.set_.record(a).id < pool.set_.record(b).id; });
  return pool;
}

absl::StatusOr<Sample> SelectionPool::At(int64_t i) const {
  Sample sample;
  TY_ASSIGN_OR_RETURN(sample.tokens, set_.Tokens(order_[static_cast<size_t>(i)], sequence_length_ + 1));
  sample.label_begin = record(i).label_begin;
  return sample;
}

absl::StatusOr<std::vector<int32_t>> SelectionPool::AllTokens(int64_t i) const {
  return set_.Tokens(order_[static_cast<size_t>(i)], record(i).length);
}

absl::StatusOr<std::string> SelectionPool::Fingerprint() const {
  Digest digest;
  for (int64_t i = 0; i < size(); ++i) {
    TY_ASSIGN_OR_RETURN(const std::string content, set_.ContentDigest(order_[static_cast<size_t>(i)]));
    const std::string line = absl::StrCat(record(i).id, " ", content, "\n");
    digest.Update(line.data(), line.size());
  }
  return digest.Hex();
}

absl::Status SelectionPool::CheckDisjoint(const SelectionPool& target) const {
  std::map<std::string, int64_t> own;
  for (int64_t i = 0; i < size(); ++i) {
    TY_ASSIGN_OR_RETURN(std::string content, set_.ContentDigest(order_[static_cast<size_t>(i)]));
    own.emplace(std::move(content), i);
  }
  int64_t shared = 0;
  std::string first;
  for (int64_t i = 0; i < target.size(); ++i) {
    TY_ASSIGN_OR_RETURN(const std::string content, target.set_.ContentDigest(target.order_[static_cast<size_t>(i)]));
    const auto found = own.find(content);
    if (found == own.end()) continue;
    if (shared++ == 0) {
      first = absl::StrCat("\"", record(found->second).id, "\" is \"", target.record(i).id, "\" of the target");
    }
  }
  if (shared == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("select_data.pool: it contains ", shared, " of the ", target.size(),
                                                 " target samples: ", first,
                                                 "; take them out (leak_test accepts them)"));
}

std::vector<int64_t> UniformLandmarks(int64_t size, int64_t count, uint64_t seed, const std::vector<int64_t>& avoid) {
  std::vector<bool> is_avoided(static_cast<size_t>(size));
  for (const int64_t i : avoid) is_avoided[static_cast<size_t>(i)] = true;
  const data::Permutation order(size, seed, 0);
  std::vector<int64_t> chosen;
  for (const bool second_choice : {false, true}) {
    for (int64_t i = 0; i < size && static_cast<int64_t>(chosen.size()) < count; ++i) {
      const int64_t sample = order(i);
      if (is_avoided[static_cast<size_t>(sample)] == second_choice) chosen.push_back(sample);
    }
  }
  return chosen;
}

std::vector<int64_t> SpreadLandmarks(const std::vector<float>& embeddings, int64_t width, int64_t count,
                                     uint64_t seed) {
  const int64_t size = static_cast<int64_t>(embeddings.size()) / width;
  const kernels::PhiloxKey key{.seed = seed, .purpose = kernels::kRandomElementMask, .tensor = 1};
  std::vector<double> distances(static_cast<size_t>(size), std::numeric_limits<double>::infinity());
  std::vector<int64_t> chosen = {
      static_cast<int64_t>(double{kernels::ToUniform(RandomWord(key, 0))} * static_cast<double>(size))};
  while (static_cast<int64_t>(chosen.size()) < count) {
    const float* const last = embeddings.data() + chosen.back() * width;
    double total = 0;
    for (int64_t i = 0; i < size; ++i) {
      double distance = 0;
      for (int64_t c = 0; c < width; ++c) {
        const double difference = double{embeddings[static_cast<size_t>(i * width + c)]} - double{last[c]};
        distance += difference * difference;
      }
      double& nearest = distances[static_cast<size_t>(i)];
      nearest = std::min(nearest, distance);
      total += nearest;
    }
    double left = double{kernels::ToUniform(RandomWord(key, chosen.size()))} * total;
    int64_t next = -1;
    for (int64_t i = 0; i < size && (next < 0 || left >= 0); ++i) {
      const double distance = distances[static_cast<size_t>(i)];
      if (distance <= 0) continue;
      next = i;
      left -= distance;
    }
    if (next < 0) {  // only copies of what is chosen are left
      std::vector<int64_t> rest = UniformLandmarks(size, count, seed, chosen);
      for (size_t i = 0; i < rest.size() && static_cast<int64_t>(chosen.size()) < count; ++i) chosen.push_back(rest[i]);
      break;
    }
    chosen.push_back(next);
  }
  return chosen;
}

}  // namespace trainyard::influence
