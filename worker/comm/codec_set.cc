#include "worker/comm/codec_set.h"

#include <bit>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/check.h"
#include "base/overloaded.h"
#include "kernels/codec/huffman.h"
#include "kernels/codec/level_fit.h"

namespace trainyard::comm {
namespace {

constexpr char kHeader[] = "codecs 1";

int GroupBits(const spec::CodecOptions& codec) {
  if (const auto* maxmin = std::get_if<spec::MaxminCodec>(&codec)) return maxmin->bits;
  if (const auto* levels = std::get_if<spec::LevelsCodec>(&codec)) return levels->bits;
  return 0;
}

std::vector<float> FirstLevels(const spec::CodecOptions& codec) {
  const auto* levels = std::get_if<spec::LevelsCodec>(&codec);
  if (levels == nullptr) return {};
  const int steps = (1 << (levels->bits - 1)) - 1;
  return levels->table == spec::LevelTable::kExponential ? kernels::ExponentialLevels(steps)
                                                         : kernels::UniformLevels(steps);
}

// The codec of the sums; nullopt: the one of the pieces. Sums are coded evenly whatever the pieces are: phase 2 is not
// averaged over ranks, and maxmin loses least for its bytes.
std::optional<spec::CodecOptions> SumCodec(const spec::CommunicationOptions& options, const spec::CodecOptions& codec) {
  using Sum = std::optional<spec::CodecOptions>;
  if (options.exchange != spec::ExchangeKind::kSra) return std::nullopt;
  if (std::holds_alternative<spec::TopKCodec>(codec)) return std::nullopt;
  if (options.phase2_bits == 32) return spec::IdentityCodec{};
  const auto maxmin = [&](int32_t bucket_size, spec::Rounding rounding) -> Sum {
    return spec::MaxminCodec{options.phase2_bits, bucket_size, rounding};
  };
  return std::visit(Overloaded{
                        [&](const spec::MaxminCodec& o) { return maxmin(o.bucket_size, o.rounding); },
                        [&](const spec::LevelsCodec& o) { return maxmin(o.bucket_size, spec::Rounding::kStochastic); },
                        [&](const spec::SignMeanCodec& o) { return maxmin(o.bucket_size, spec::Rounding::kNearest); },
                        [&](const spec::IdentityCodec&) -> Sum { return std::nullopt; },
                        [&](const spec::TopKCodec&) -> Sum { return std::nullopt; },
                        [&](const spec::PowerSgdCodec&) -> Sum { return std::nullopt; },
                    },
                    codec);
}

bool IsLevelTable(const std::vector<float>& levels, size_t size) {
  if (levels.size() != size || levels.front() != 0.0f || levels.back() != 1.0f) return false;
  for (size_t i = 1; i < levels.size(); ++i) {
    if (!(levels[i] > levels[i - 1])) return false;
  }
  return true;
}

}  // namespace

double BitsOf(const spec::CodecOptions& codec) {
  return std::visit(Overloaded{
                        [](const spec::IdentityCodec&) { return 32.0; },
                        [](const spec::MaxminCodec& o) { return static_cast<double>(o.bits); },
                        [](const spec::LevelsCodec& o) { return static_cast<double>(o.bits); },
                        [](const spec::SignMeanCodec&) { return 1.0; },
                        [](const spec::TopKCodec& o) { return 64.0 * o.density; },
                        [](const spec::PowerSgdCodec&) { return 32.0; },
                    },
                    codec);
}

bool IsCoded(const spec::CommunicationOptions& options, const spec::CodecOptions& codec, int64_t elements, int dims) {
  return !std::holds_alternative<spec::IdentityCodec>(codec) && elements >= options.min_elements && dims > 1;
}

CodecSet::CodecSet(const spec::CommunicationOptions& options, const CodecFactory& make_codec,
                   std::vector<LayerType> types, std::vector<Tensor> tensors)
    : options_(options), make_codec_(make_codec), types_(std::move(types)), tensors_(std::move(tensors)) {
  for (const LayerType& type : types_) {
    const std::optional<spec::CodecOptions> sum = SumCodec(options_, type.codec);
    phase2_.push_back(sum ? make_codec_({*sum, {}, ""}) : nullptr);
  }
  for (const Tensor& tensor : tensors_) {
    keys_.emplace_back(tensor.type, tensor.is_coded ? GroupBits(types_[Index(tensor.type)].codec) : 0);
  }
  Regroup();
}

void CodecSet::Regroup() {
  group_of_.assign(tensors_.size(), nullptr);
  for (size_t i = 0; i < tensors_.size(); ++i) {
    if (!tensors_[i].is_coded) continue;
    Group& group = groups_[keys_[i]];
    if (group.codec == nullptr) {
      group.setting = FirstSetting(keys_[i]);
      MakeCodecOf(&group);
    }
    group_of_[i] = &group;
  }
}

CodecSetting CodecSet::FirstSetting(GroupKey key) const {
  CodecSetting setting{types_[Index(key.first)].codec, {}, ""};
  if (auto* maxmin = std::get_if<spec::MaxminCodec>(&setting.codec)) maxmin->bits = key.second;
  setting.levels = FirstLevels(setting.codec);
  return setting;
}

void CodecSet::MakeCodecOf(Group* group) {
  group->codec = make_codec_(group->setting);
}

std::map<std::string, double> CodecSet::BitsByType() const {
  std::vector<double> bits(types_.size()), elements(types_.size());
  for (size_t i = 0; i < tensors_.size(); ++i) {
    if (!tensors_[i].is_coded) continue;
    const size_t type = Index(tensors_[i].type);
    bits[type] += BitsOf(group_of_[i]->setting.codec) * static_cast<double>(tensors_[i].elements);
    elements[type] += static_cast<double>(tensors_[i].elements);
  }
  std::map<std::string, double> means;
  for (size_t type = 0; type < types_.size(); ++type) {
    if (elements[type] > 0) means[types_[type].name] = bits[type] / elements[type];
  }
  return means;
}

void CodecSet::SetBits(const std::vector<int>& bits) {
  TY_CHECK_EQ(bits.size(), tensors_.size());
  bool changes = false;
  for (size_t i = 0; i < bits.size(); ++i) {
    if (!tensors_[i].is_coded || !std::holds_alternative<spec::MaxminCodec>(types_[Index(keys_[i].first)].codec))
      continue;
    changes |= keys_[i].second != bits[i];
    keys_[i].second = bits[i];
  }
  if (!changes) return;
  Regroup();
  ++epoch_;
}

void CodecSet::SetLevels(GroupKey key, std::vector<float> levels) {
  Group& group = groups_.at(key);
  if (group.setting.levels == levels) return;
  group.setting.levels = std::move(levels);
  MakeCodecOf(&group);
  ++epoch_;
}

void CodecSet::SetCodeTable(GroupKey key, std::string table) {
  Group& group = groups_.at(key);
  if (group.setting.code_table == table) return;
  group.setting.code_table = std::move(table);
  MakeCodecOf(&group);
  ++epoch_;
}

// Lines: the header, the epoch, bits a tensor, then what each group has. Floats as their bits: a text is exact.
std::string CodecSet::Text() const {
  std::string text = absl::StrCat(kHeader, "\nepoch ", epoch_, "\nbits");
  for (const GroupKey& key : keys_) absl::StrAppend(&text, " ", key.second);
  for (const auto& [key, group] : groups_) {
    const std::string name = absl::StrCat(" ", key.first, " ", key.second);
    if (!group.setting.levels.empty()) {
      absl::StrAppend(&text, "\nlevels", name);
      for (float level : group.setting.levels) absl::StrAppend(&text, " ", std::bit_cast<uint32_t>(level));
    }
    if (!group.setting.code_table.empty()) {
      absl::StrAppend(&text, "\ncode", name, " ", group.setting.code_table);
    }
  }
  return text;
}

absl::Status CodecSet::Restore(const std::string& text) {
  const auto bad = [](absl::string_view what) {
    return absl::DataLossError(absl::StrCat("state of the gradient exchange: ", what));
  };
  std::vector<GroupKey> keys = keys_;
  std::map<GroupKey, std::vector<float>> levels;
  std::map<GroupKey, std::string> tables;
  int64_t epoch = -1;
  const std::vector<std::string> lines = absl::StrSplit(text, '\n');
  if (lines.size() < 3 || lines[0] != kHeader) return bad("no codec settings");
  for (size_t i = 1; i < lines.size(); ++i) {
    const std::vector<std::string> words = absl::StrSplit(lines[i], ' ', absl::SkipEmpty());
    if (words.empty()) continue;
    if (words[0] == "epoch") {
      if (words.size() != 2 || !absl::SimpleAtoi(words[1], &epoch)) return bad("no epoch");
      continue;
    }
    if (words[0] == "bits") {
      if (words.size() != keys.size() + 1) {
        return bad(absl::StrCat("bits of ", words.size() - 1, " tensors, there are ", keys.size()));
      }
      for (size_t t = 0; t < keys.size(); ++t) {
        int bits = -1;
        if (!absl::SimpleAtoi(words[t + 1], &bits) || bits < 0 || bits > 8 || (bits == 0) != (keys_[t].second == 0)) {
          return bad(absl::StrCat("bits '", words[t + 1], "'"));
        }
        keys[t].second = bits;
      }
      continue;
    }
    GroupKey key;
    if (words.size() < 4 || !absl::SimpleAtoi(words[1], &key.first) || !absl::SimpleAtoi(words[2], &key.second) ||
        key.first < 0 || Index(key.first) >= types_.size()) {
      return bad(absl::StrCat("line '", lines[i].substr(0, 80), "'"));
    }
    if (words[0] == "levels") {
      for (size_t w = 3; w < words.size(); ++w) {
        uint32_t bits = 0;
        if (!absl::SimpleAtoi(words[w], &bits)) return bad("a level that is no number");
        levels[key].push_back(std::bit_cast<float>(bits));
      }
      const std::vector<float> first = FirstLevels(types_[Index(key.first)].codec);
      if (!IsLevelTable(levels[key], first.size())) return bad("levels that do not rise from 0 to 1");
    } else if (words[0] == "code") {
      const absl::StatusOr<kernels::HuffmanTable> table = kernels::HuffmanTable::FromText(words[3]);
      if (!table.ok() || key.second < 1 || table->symbols() != 1 << key.second) return bad("a code table that is none");
      tables[key] = words[3];
    } else {
      return bad(absl::StrCat("line '", lines[i].substr(0, 80), "'"));
    }
  }
  if (epoch < 0) return bad("no epoch");

  // A group that no tensor is in any more may have tables: tensors may come back to it.
  keys_ = std::move(keys);
  epoch_ = epoch;
  groups_.clear();
  Regroup();
  for (const auto& [key, table] : tables) {
    if (groups_.count(key) == 0) groups_[key].setting = FirstSetting(key);
  }
  for (auto& [key, group] : groups_) {
    if (const auto found = levels.find(key); found != levels.end()) group.setting.levels = std::move(found->second);
    if (const auto found = tables.find(key); found != tables.end()) group.setting.code_table = std::move(found->second);
    MakeCodecOf(&group);
  }
  return absl::OkStatus();
}

}  // namespace trainyard::comm
