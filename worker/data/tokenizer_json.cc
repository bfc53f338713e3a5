// Tokenizer::FromJson and ToJson: the tokenizer.json of Hugging Face's `tokenizers`, as far as it describes byte-level
// BPE.
#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/status_macros.h"
#include "worker/data/tokenizer.h"
#include "worker/data/utf8.h"

namespace trainyard::data {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kMaxVocab = int64_t{1} << 24;

// GPT-2's alphabet: printable Latin-1 bytes stand for themselves, the other 68 for U+0100 upwards, in their order.
const std::array<uint32_t, 256>& CodeOfByte() {
  static const std::array<uint32_t, 256> codes = [] {
    std::array<uint32_t, 256> result{};
    uint32_t next = 256;
    for (uint32_t byte = 0; byte < 256; ++byte) {
      const bool is_printable =
          (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || (byte >= 0xAE && byte <= 0xFF);
      result[byte] = is_printable ? byte : next++;
    }
    return result;
  }();
  return codes;
}

std::string ToAlphabet(absl::string_view bytes) {
  std::string text;
  for (char byte : bytes) AppendUtf8(CodeOfByte()[static_cast<uint8_t>(byte)], &text);
  return text;
}

// False if a character is not of the alphabet.
bool FromAlphabet(absl::string_view text, std::string* bytes) {
  static const std::array<int, 512> byte_of_code = [] {
    std::array<int, 512> result;
    result.fill(-1);
    for (int byte = 0; byte < 256; ++byte) result[CodeOfByte()[static_cast<size_t>(byte)]] = byte;
    return result;
  }();
  bytes->clear();
  for (size_t i = 0; i < text.size();) {
    const Utf8Char c = CharAt(text, i);
    if (c.code >= byte_of_code.size() || byte_of_code[c.code] < 0) return false;
    bytes->push_back(static_cast<char>(byte_of_code[c.code]));
    i += c.bytes;
  }
  return true;
}

// Reads one file; every method returns an error that names the field.
class Reader {
 public:
  Reader(const Json& root, const std::string& path) : root_(root), path_(path) {}

  absl::StatusOr<TokenizerParts> Read() {
    if (!root_.is_object()) return Bad("", "is not a JSON object");
    if (!Empty(root_, "normalizer"))
      return Bad("normalizer", "only null is supported, not ", Show(root_, "normalizer"));
    TY_RETURN_IF_ERROR(ReadPreTokenizer());
    TY_RETURN_IF_ERROR(ReadModel());
    TY_RETURN_IF_ERROR(ReadAdded());
    return std::move(parts_);
  }

 private:
  template <typename... Words>
  absl::Status Bad(absl::string_view field, const Words&... words) const {
    return absl::InvalidArgumentError(absl::StrCat(path_, field.empty() ? "" : ": ", field, ": ", words...));
  }
  static bool Empty(const Json& object, const char* name) {
    const auto found = object.find(name);
    return found == object.end() || found->is_null();
  }
  // The type of an object, or the value of anything else, for messages.
  static std::string Show(const Json& object, const char* name) {
    const auto found = object.find(name);
    if (found == object.end()) return "nothing";
    if (found->is_object() && found->contains("type")) return Show(*found, "type");
    return found->dump(-1, ' ', false, Json::error_handler_t::replace).substr(0, 200);
  }
  static std::string TypeOf(const Json& object) {
    if (!object.is_object()) return "";
    const auto found = object.find("type");
    return found != object.end() && found->is_string() ? found->get<std::string>() : "";
  }
  static bool Flag(const Json& object, const char* name, bool otherwise) {
    const auto found = object.find(name);
    return found != object.end() && found->is_boolean() ? found->get<bool>() : otherwise;
  }

  absl::Status ReadPreTokenizer() {
    const auto found = root_.find("pre_tokenizer");
    if (found == root_.end() || !found->is_object()) return Bad("pre_tokenizer", "is missing, not byte-level");
    std::vector<const Json*> steps;
    if (TypeOf(*found) == "Sequence") {
      if (!found->contains("pretokenizers") || !(*found)["pretokenizers"].is_array()) {
        return Bad("pre_tokenizer.pretokenizers", "is not a list");
      }
      for (const Json& step : (*found)["pretokenizers"]) steps.push_back(&step);
    } else {
      steps.push_back(&*found);
    }
    size_t i = 0;
    if (i < steps.size() && TypeOf(*steps[i]) == "Digits") {
      if (!Flag(*steps[i], "individual_digits", false)) {
        return Bad("pre_tokenizer.Digits", "only individual_digits: true is supported");
      }
      parts_.pre_tokenizer.split_digits = true;
      ++i;
    }
    bool has_split = false;
    if (i < steps.size() && TypeOf(*steps[i]) == "Split") {
      TY_RETURN_IF_ERROR(ReadSplit(*steps[i]));
      has_split = true;
      ++i;
    }
    if (i + 1 != steps.size() || TypeOf(*steps[i]) != "ByteLevel") {
      return Bad("pre_tokenizer", "is not byte-level: [Digits,] [Split,] ByteLevel is supported, not ",
                 Show(root_, "pre_tokenizer"), i < steps.size() ? absl::StrCat(" with ", TypeOf(*steps[i])) : "");
    }
    if (Flag(*steps[i], "add_prefix_space", true)) {
      return Bad("pre_tokenizer.ByteLevel.add_prefix_space", "true is not supported");
    }
    if (Flag(*steps[i], "use_regex", true)) {
      if (has_split) return Bad("pre_tokenizer.ByteLevel.use_regex", "true after a Split is not supported");
      parts_.pre_tokenizer.pattern = PreTokenizer::Pattern::kGpt2;
    } else if (!has_split) {
      parts_.pre_tokenizer.pattern = PreTokenizer::Pattern::kNone;
    }
    return absl::OkStatus();
  }

  absl::Status ReadSplit(const Json& split) {
    const auto pattern = split.find("pattern");
    if (pattern == split.end() || !pattern->is_object() || !pattern->contains("Regex") ||
        !(*pattern)["Regex"].is_string()) {
      return Bad("pre_tokenizer.Split.pattern", "is not a Regex");
    }
    if (Show(split, "behavior") != "\"Isolated\"" || Flag(split, "invert", false)) {
      return Bad("pre_tokenizer.Split", "only behavior Isolated, not inverted, is supported");
    }
    const std::string regex = (*pattern)["Regex"].get<std::string>();
    for (const auto known :
         {PreTokenizer::Pattern::kGpt2, PreTokenizer::Pattern::kLlama3, PreTokenizer::Pattern::kQwen2}) {
      if (RegexOf(known) == regex) {
        parts_.pre_tokenizer.pattern = known;
        return absl::OkStatus();
      }
    }
    return Bad("pre_tokenizer.Split.pattern",
               "this regular expression is not one of GPT-2, Llama 3 and Qwen 2: ", regex);
  }

  absl::Status ReadModel() {
    const auto model = root_.find("model");
    if (model == root_.end() || !model->is_object()) return Bad("model", "is missing");
    // Old files have no type for BPE.
    if (model->contains("type") && TypeOf(*model) != "BPE")
      return Bad("model.type", Show(*model, "type"), " is not BPE");
    if (Flag(*model, "byte_fallback", false)) return Bad("model.byte_fallback", "true is not byte-level BPE");
    for (const char* name : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      if (!Empty(*model, name) && Show(*model, name) != "\"\"") {
        return Bad(absl::StrCat("model.", name), "only null is supported, not ", Show(*model, name));
      }
    }
    if (!Empty(*model, "dropout") && (*model)["dropout"] != 0) return Bad("model.dropout", "only null is supported");
    parts_.ignore_merges = Flag(*model, "ignore_merges", false);

    if (!model->contains("vocab") || !(*model)["vocab"].is_object()) return Bad("model.vocab", "is not an object");
    for (const auto& [text, id] : (*model)["vocab"].items()) {
      std::string* token = nullptr;
      TY_RETURN_IF_ERROR(Slot(id, absl::StrCat("model.vocab.", text), &token));
      // Entries outside the alphabet can only be added tokens; ReadAdded must confirm them.
      if (!FromAlphabet(text, token)) {
        *token = text;
        unconfirmed_.emplace_back(id.get<int32_t>(), text);
      }
      if (!id_of_text_.emplace(text, id.get<int32_t>()).second) return Bad("model.vocab", text, " stands there twice");
    }
    if (!model->contains("merges") || !(*model)["merges"].is_array()) return Bad("model.merges", "is not a list");
    for (const Json& merge : (*model)["merges"]) {
      const std::string where = absl::StrCat("model.merges[", parts_.merges.size(), "]");
      std::vector<std::string> sides;
      if (merge.is_string()) {
        sides = absl::StrSplit(merge.get_ref<const std::string&>(), ' ');
      } else if (merge.is_array()) {
        for (const Json& side : merge) sides.push_back(side.is_string() ? side.get<std::string>() : "");
      }
      if (sides.size() != 2) return Bad(where, "is not a pair");
      std::pair<int32_t, int32_t> ids;
      for (int side = 0; side < 2; ++side) {
        const auto found = id_of_text_.find(sides[static_cast<size_t>(side)]);
        if (found == id_of_text_.end()) return Bad(where, "\"", sides[static_cast<size_t>(side)], "\" is no token");
        (side == 0 ? ids.first : ids.second) = found->second;
      }
      parts_.merges.push_back(ids);
    }
    return absl::OkStatus();
  }

  absl::Status ReadAdded() {
    if (!Empty(root_, "added_tokens")) {
      if (!root_["added_tokens"].is_array()) return Bad("added_tokens", "is not a list");
      for (const Json& item : root_["added_tokens"]) {
        const std::string where = absl::StrCat("added_tokens[", parts_.added.size(), "]");
        if (!item.is_object() || !item.contains("content") || !item["content"].is_string() || !item.contains("id")) {
          return Bad(where, "has no content and id");
        }
        AddedToken added;
        added.content = item["content"].get<std::string>();
        added.special = Flag(item, "special", false);
        for (const char* name : {"single_word", "lstrip", "rstrip"}) {
          if (Flag(item, name, false)) return Bad(absl::StrCat(where, ".", name), "true is not supported");
        }
        const auto in_vocab = id_of_text_.find(added.content);
        std::string* token = nullptr;
        if (in_vocab != id_of_text_.end() && item["id"] == in_vocab->second) {
          token = &parts_.tokens[static_cast<size_t>(in_vocab->second)];
        } else {
          TY_RETURN_IF_ERROR(Slot(item["id"], absl::StrCat(where, ".id"), &token));
        }
        *token = added.content;
        added.id = item["id"].get<int32_t>();
        parts_.added.push_back(std::move(added));
      }
    }
    for (const auto& [id, text] : unconfirmed_) {
      const bool is_added = std::any_of(parts_.added.begin(), parts_.added.end(),
                                        [id = id](const AddedToken& added) { return added.id == id; });
      if (!is_added) return Bad("model.vocab", "\"", text, "\" is not written in the byte-level alphabet");
    }
    return absl::OkStatus();
  }

  // The place of a new id.
  absl::Status Slot(const Json& id, const std::string& where, std::string** token) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() >= static_cast<uint64_t>(kMaxVocab)) {
      return Bad(where, id.dump(-1, ' ', false, Json::error_handler_t::replace), " is not an id in [0, ", kMaxVocab,
                 ")");
    }
    const size_t index = id.get<size_t>();
    if (index >= parts_.tokens.size()) parts_.tokens.resize(index + 1);
    if (!parts_.tokens[index].empty()) return Bad(where, "id ", index, " is given twice");
    *token = &parts_.tokens[index];
    return absl::OkStatus();
  }

  const Json& root_;
  const std::string& path_;
  TokenizerParts parts_;
  absl::flat_hash_map<std::string, int32_t> id_of_text_;
  std::vector<std::pair<int32_t, std::string>> unconfirmed_;
};

Json PreTokenizerJson(const PreTokenizer& pre_tokenizer) {
  const bool is_gpt2 = pre_tokenizer.pattern == PreTokenizer::Pattern::kGpt2;
  Json steps = Json::array();
  if (pre_tokenizer.split_digits) steps.push_back({{"type", "Digits"}, {"individual_digits", true}});
  if (!is_gpt2 && pre_tokenizer.pattern != PreTokenizer::Pattern::kNone) {
    steps.push_back({{"type", "Split"},
                     {"pattern", {{"Regex", std::string(RegexOf(pre_tokenizer.pattern))}}},
                     {"behavior", "Isolated"},
                     {"invert", false}});
  }
  steps.push_back({{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", is_gpt2}});
  if (steps.size() == 1) return steps[0];
  return {{"type", "Sequence"}, {"pretokenizers", steps}};
}

}  // namespace

absl::StatusOr<Tokenizer> Tokenizer::FromJson(const std::string& json, const std::string& path) {
  const Json root = Json::parse(json, nullptr, /*allow_exceptions=*/false);
  if (root.is_discarded()) return absl::InvalidArgumentError(absl::StrCat(path, ": is not JSON"));
  TY_ASSIGN_OR_RETURN(TokenizerParts parts, Reader(root, path).Read());
  absl::StatusOr<Tokenizer> tokenizer = Create(std::move(parts));
  TY_RETURN_IF_ERROR(Annotate(tokenizer.status(), path));
  tokenizer->source_json_ = json;
  return tokenizer;
}

std::string Tokenizer::ToJson() const {
  if (!source_json_.empty()) return source_json_;
  Json added = Json::array();
  for (const AddedToken& token : parts_.added) {
    added.push_back({{"id", token.id},
                     {"content", token.content},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", token.special}});
  }
  std::vector<bool> is_added(parts_.tokens.size());
  for (const AddedToken& token : parts_.added) is_added[static_cast<size_t>(token.id)] = true;
  std::vector<std::string> texts;
  Json vocab = Json::object();
  for (size_t id = 0; id < parts_.tokens.size(); ++id) {
    texts.push_back(is_added[id] ? parts_.tokens[id] : ToAlphabet(parts_.tokens[id]));
    if (texts.back().empty()) continue;
    // An ordered object searches its keys one by one; these are known to differ.
    vocab.get_ref<Json::object_t&>().push_back({texts.back(), Json(id)});
  }
  Json merges = Json::array();
  for (const auto& [left, right] : parts_.merges) {
    merges.push_back(Json::array({texts[static_cast<size_t>(left)], texts[static_cast<size_t>(right)]}));
  }
  const Json root = {
      {"version", "1.0"},
      {"truncation", nullptr},
      {"padding", nullptr},
      {"added_tokens", added},
      {"normalizer", nullptr},
      {"pre_tokenizer", PreTokenizerJson(parts_.pre_tokenizer)},
      {"post_processor", nullptr},
      {"decoder", {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}}},
      {"model",
       {{"type", "BPE"},
        {"dropout", nullptr},
        {"unk_token", nullptr},
        {"continuing_subword_prefix", nullptr},
        {"end_of_word_suffix", nullptr},
        {"fuse_unk", false},
        {"byte_fallback", false},
        {"ignore_merges", parts_.ignore_merges},
        {"vocab", vocab},
        {"merges", merges}}},
  };
  return root.dump(1, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace trainyard::data
